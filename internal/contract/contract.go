// Package contract knows which headers of a request to a worker are not the
// user's: the configuration refuses what the transform would.
package contract

import (
	"net/http"
	"slices"
	"strings"
)

// reserved are the headers that the contract or the connection needs, beside all
// that begin with Seriatim-.
var reserved = []string{
	"Idempotency-Key", "Traceparent", "Host", "Content-Length", "Content-Encoding", "Accept-Encoding", "Connection", "Keep-Alive",
	"Proxy-Connection", "Proxy-Authorization", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Expect",
}

// Reserved says whether the program alone sets the header of that name, however
// it is spelt.
func Reserved(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return slices.Contains(reserved, name) || strings.HasPrefix(name, "Seriatim-")
}
