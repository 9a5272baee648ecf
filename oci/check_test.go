package oci

import (
	"errors"
	"net/http"
	"testing"
)

func TestCheckPush(t *testing.T) {
	refuse := func(code int) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request) bool
		want   error
	}{
		{"allowed", nil, nil},
		{"forbidden", refuse(http.StatusForbidden), ErrUnauthorized},
		{"no such repository", refuse(http.StatusNotFound), ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newRegistry(t)
			f.handle(tt.answer)
			err := testRemote(t, RemoteOptions{}).CheckPush(t.Context(), f.host+"/a/b:tag")
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if n := f.count("PUT "); n != 0 {
				t.Errorf("got %d things stored, want none", n)
			}
		})
	}
	if err := testRemote(t, RemoteOptions{}).CheckPush(t.Context(), "Bad:Name"); !errors.Is(err, ErrRef) {
		t.Errorf("bad name: got %v, want ErrRef", err)
	}
}
