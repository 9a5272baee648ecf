package s3

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// The examples that Amazon publishes: "Signature Calculations for the Authorization
// Header" of S3, and the first ones of the general test suite.
func TestSign(t *testing.T) {
	s3 := signer{Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}, "us-east-1", "s3"}
	suite := signer{Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}, "us-east-1", "service"}
	day := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	empty := hexSHA256("")
	const bucket = "https://examplebucket.s3.amazonaws.com"
	tests := []struct {
		name, method, url, payload, want string
		header                           map[string]string
		signer                           signer
		when                             time.Time
	}{
		{"get object", "GET", bucket + "/test.txt", empty, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", map[string]string{"Range": "bytes=0-9"}, s3, day},
		{"put object", "PUT", bucket + "/" + escape("test$file.text", true), hexSHA256("Welcome to Amazon S3."), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY"}, s3, day},
		{"query without a value", "GET", bucket + "/?lifecycle", empty, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", nil, s3, day},
		{"query", "GET", bucket + "/?max-keys=2&prefix=J", empty, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", nil, s3, day},
		{"vanilla", "GET", "https://example.amazonaws.com/", empty, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", nil, suite, time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)},
		{"query order", "GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1", empty, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", nil, suite, time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, tt.url, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
			tt.signer.sign(req, tt.payload, tt.when)
			_, got, _ := strings.Cut(req.Header.Get("Authorization"), "Signature=")
			if got != tt.want {
				t.Errorf("signature: got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{"a/b c": "a/b%20c", "ä+&=": "%C3%A4%2B%26%3D", "-._~": "-._~"} {
		if got := escape(in, true); got != want {
			t.Errorf("escape %q: got %q, want %q", in, got, want)
		}
	}
	if got := escape("a/b", false); got != "a%2Fb" {
		t.Errorf("escape of a slash: got %q, want a%%2Fb", got)
	}
}
