package oci

import (
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"
)

func TestCheckJSON(t *testing.T) {
	many := func(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"small", `{"layers":[{},{}]}`, nil},
		{"as many as there may be", `{"layers":[` + many("{}", maxListed) + `]}`, nil},
		{"too many", `{"layers":[` + many("{}", maxListed+1) + `]}`, ErrTooLarge},
		{"too many keys", `{"a":{` + many(`"":1`, maxListed+1) + `}}`, ErrTooLarge},
		{"many lists of a few", `[` + many(`[1,2,3]`, 20_000) + `]`, nil},
		{"commas in words", `["` + strings.Repeat(`,\",`, 100_000) + `"]`, nil},
		{"a word that hides a list", `["\\",[` + many("1", maxListed+1) + `]]`, ErrTooLarge},
		{"deep", strings.Repeat("[", maxDepth), ErrTooLarge},
		{"no JSON", "]]}}\\", nil},
	} {
		if err := CheckJSON([]byte(tt.text)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// Documents of millions of empty things cost little before they are refused.
func TestHugeListsTakeLittleMemory(t *testing.T) {
	empty := strings.TrimSuffix(strings.Repeat("{},", 1_300_000), ",")
	for name, read := range map[string]func() error{
		"manifest": func() error {
			_, err := kind([]byte(`{"schemaVersion":2,"config":{},"layers":[`+empty+`]}`), "")
			return err
		},
		"index of a layout": func() error {
			_, err := parseIndex([]byte(`{"manifests":[` + empty + `]}`))
			return err
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read()
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrTooLarge) || took > 32<<20 {
			t.Errorf("%s: got %v after %d MiB, want %v after little", name, err, took>>20, ErrTooLarge)
		}
	}
	if !json.Valid([]byte("[" + empty + "]")) {
		t.Error("the lists are not JSON")
	}
}
