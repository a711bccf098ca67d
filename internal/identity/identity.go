// Package identity describes the owner of a login by a configuration without its
// secrets. Rotating a secret doesn't change the identity; another client, user, scope
// or address does.
package identity

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Of returns parts as a string that is unique to parts, since the encoding is JSON. Of
// returns false if a part can't be marshalled.
func Of(parts ...any) (string, bool) {
	text, err := json.Marshal(parts)
	return string(text), err == nil
}

// secretWords are names of secrets, as the last word of a field's name: "api_key" is a
// secret and "key_id" isn't. A field that is left out can't tell two identities apart,
// so the list is short.
var secretWords = []string{
	"password", "passwd", "passphrase", "passcode", "passkey", "pass", "pwd", "pswd", "pw", "secret", "token", "assertion", "key", "apikey", "pin", "otp", "totp", "hotp", "credential", "credentials", "signature", "sig", "jwt",
}

// joined are secret words that may end a name without a separator.
var joined = []string{"password", "passwd", "passphrase", "passcode", "pwd", "userpass", "secret", "token", "assertion", "apikey", "secretkey", "privatekey", "authkey", "authcode"}

// codes are words before "code" that make the code a secret; a country code is no
// secret.
var codes = []string{"auth", "authorization", "device", "user", "otp", "totp", "mfa", "sms", "verification", "security", "login", "pin", "pass", "access"}

// whoWords are words that distinguish logins, as the last word of a field's name. An
// object whose own name is a secret word (Keystone's "password", which contains the
// user) keeps only members with such names. A member that is left out can't distinguish
// logins.
var whoWords = []string{
	"user", "username", "name", "id", "uid", "uuid", "email", "mail", "login", "account", "client", "subject", "sub",
	"tenant", "domain", "realm", "project", "org", "organization", "organisation", "company", "team", "workspace", "group", "role", "site",
	"scope", "scopes", "audience", "resource", "issuer", "url", "uri", "host", "server", "region", "database", "db", "type",
}

// Secret reports whether the name looks like the name of a secret.
func Secret(name string) bool {
	words := words(name)
	if len(words) == 0 {
		return false
	}
	last := strings.TrimRight(words[len(words)-1], "0123456789")
	if last == "code" {
		return len(words) == 1 || slices.Contains(codes, words[len(words)-2])
	}
	return slices.Contains(secretWords, last) || slices.ContainsFunc(joined, func(end string) bool { return strings.HasSuffix(last, end) })
}

// words splits a name at separators and capitals, in lower case.
func words(name string) []string {
	var all []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			all = append(all, strings.ToLower(word.String()))
			word.Reset()
		}
	}
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			end()
			continue
		case unicode.IsUpper(r) && i > 0 && unicode.IsLower(runes[i-1]):
			end()
		}
		word.WriteRune(r)
	}
	end()
	return all
}

// Values returns values without the secrets.
func Values[M ~map[string][]string](values M) map[string][]string {
	open := make(map[string][]string, len(values))
	for name, v := range values {
		if !Secret(name) {
			open[name] = v
		}
	}
	return open
}

// Header is Values for a header, by canonical names, without credentials but for the
// user of HTTP Basic.
func Header(h http.Header) map[string][]string {
	open := make(map[string][]string, len(h))
	if user, _, ok := (&http.Request{Header: h}).BasicAuth(); ok {
		open["Authorization"] = []string{user}
	}
	for name, v := range Values(h) {
		switch name = http.CanonicalHeaderKey(name); name {
		case "Authorization", "Proxy-Authorization", "Cookie", "Date", "User-Agent":
		default:
			open[name] = append(open[name], v...)
		}
	}
	return open
}

// URL returns raw without secrets.
func URL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw // which no request goes to
	}
	c := *u
	if u.User != nil {
		c.User = url.User(u.User.Username())
	}
	c.RawQuery = url.Values(Values(u.Query())).Encode()
	c.Fragment, c.RawFragment = "", ""
	return c.String()
}

// JSON returns v as decoded JSON, without members of objects that hold secrets; false
// if v can't be marshalled. An object or array under the name of a secret keeps only
// the members that identify the login.
func JSON(v any) (any, bool) {
	if v == nil {
		return nil, true
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, false
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var plain any
	if dec.Decode(&plain) != nil {
		return nil, false
	}
	return open(plain, false), true
}

// open removes the secrets from v. Under the name of a secret, every value is a secret
// except values that identify the login.
func open(v any, below bool) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			secret := Secret(name)
			if (secret || below && !who(name)) && !holds(member) {
				delete(v, name)
				continue
			}
			v[name] = open(member, below || secret)
		}
	case []any:
		if below {
			v = slices.DeleteFunc(v, func(elem any) bool { return !holds(elem) })
		}
		for i := range v {
			v[i] = open(v[i], below)
		}
		return v
	}
	return v
}

// holds reports whether v has parts with names, or may have.
func holds(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

// who reports whether a field of this name distinguishes logins.
func who(name string) bool {
	words := words(name)
	return len(words) > 0 && slices.Contains(whoWords, words[len(words)-1])
}
