package transform

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"time"
)

// readAgain is how old credentials may be before their file is read again.
const readAgain = time.Second

// credentials prove to the worker who we are, in the header Authorization. They
// come from a file that may change at any time.
type credentials struct {
	setting string // that names the file
	file    string
	header  func(secret string) string

	mu    sync.Mutex
	value string
	read  time.Time
}

// credentialsOf returns those that the options want, or nil.
func credentialsOf(opts HTTPOptions) (*credentials, error) {
	basic := opts.BasicAuth
	var c *credentials
	switch {
	case opts.BearerTokenFile != "" && basic != (BasicAuth{}):
		return nil, errors.New("bearer_token_file: excludes basic_auth")
	case opts.BearerTokenFile != "":
		c = &credentials{setting: "bearer_token_file", file: opts.BearerTokenFile, header: func(token string) string { return "Bearer " + token }}
	case basic == (BasicAuth{}):
		return nil, nil //nolint:nilnil // none are wanted
	case basic.Username == "" || basic.PasswordFile == "":
		return nil, errors.New("basic_auth: needs username and password_file")
	default:
		c = &credentials{setting: "basic_auth.password_file", file: basic.PasswordFile, header: func(password string) string {
			return basicOf(basic.Username, password)
		}}
	}
	_, err := c.authorization(time.Now())
	return c, err
}

func basicOf(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// userOf returns the header's value for the user in an address; empty if there is none.
func userOf(u *url.URL) string {
	if u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	return basicOf(u.User.Username(), password)
}

// authorization returns the value of the header. The error names the setting and
// tells nothing of what is in the file.
func (c *credentials) authorization(now time.Time) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.read.IsZero() && now.Sub(c.read) < readAgain {
		return c.value, nil
	}
	content, err := os.ReadFile(c.file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.setting, err)
	}
	secret := bytes.TrimRight(content, "\r\n")
	switch {
	case len(secret) == 0:
		return "", fmt.Errorf("%s: %s is empty", c.setting, c.file)
	case bytes.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("%s: %s has a control character or more than one line", c.setting, c.file)
	}
	c.value, c.read = c.header(string(secret)), now
	return c.value, nil
}
