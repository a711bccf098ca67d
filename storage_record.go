// A record and its encoding. pipeline_record.go turns records into tokens.

package requestforge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/requestforge/requestforge/internal/loginjar"
	"github.com/requestforge/requestforge/internal/redact"
)

// maxStamp is the highest stamp and the highest mark. Above maxStamp, a store with only
// floating-point numbers (Lua in Redis, JSON elsewhere) would begin to round.
const maxStamp = 1<<53 - 1

// A Record, which few but authors of storages need, is a token as a [Storage] keeps the
// token, with the data that decides whether the token is live.
//
// Printed, logged or encoded as JSON, a Record shows no token. To store a Record use
// [Record.MarshalBinary].
type Record struct {
	// Key is the key that the record is saved under. The caller of Save sets Key; a Storage
	// keeps Key like any other field. A record that comes back under another key counts as
	// missing.
	Key string

	// Token is the fetched token. A record without a token can't be saved.
	//
	// Extra holds JSON values. The values come back as encoding/json decodes them, with each
	// number as the [json.Number] that was saved, so a Go int comes back as a json.Number and
	// a struct as a map.
	Token *Token

	// Stamp orders the records of a key; the Storage assigns Stamp. In a call of Save, Stamp
	// is a floor instead: the highest stamp or mark of the key that the caller knows, so that
	// stamps keep rising even if the Storage has lost all entries. Stamp is below 2^53.
	Stamp uint64

	// Lineage is the stamp of each ancestor that the token was made from,
	// by the ancestor's key; where several paths meet, the lowest. Stamps
	// are below 2^53. Nil for a step without parents.
	Lineage map[string]uint64

	// Issued is when the token was fetched.
	Issued time.Time

	// Until is when whatever is made from the token ends at the latest, since the user's
	// own token, which it was made from, ends then. The zero time means no bound.
	Until time.Time

	// Challenge holds the parameters of API challenges that the token was fetched with, see
	// [Step.AnswersChallenges]; a renewal has to ask for the same parameters again. Nil and
	// empty mean no parameters. An empty Challenge comes back as nil.
	Challenge map[string]string

	// Keep is how long the record is of use after its token has expired, because of the
	// refresh token. Zero or negative means until the record is replaced, and so does a token
	// without expiry.
	Keep time.Duration
}

// The encoding of a record is recordPrefix, which holds the version, and then JSON. JSON will
// be readable in twenty years, and new fields are easy to add. Strings are encoded as []byte,
// since a JSON string would replace bytes that aren't UTF-8, and times as integers, since RFC
// 3339 ends with the year 9999. gob would be shorter here but writes maps in any order.
const recordPrefix = "rf1:"

// maxRecordSize bounds an encoded record, in bytes. A fetcher reads 1 MiB at most, and base64
// or escapes don't make 4 MiB of 1 MiB in practice.
const maxRecordSize = 4 << 20

type recordWire struct {
	Key     []byte         `json:"key"`
	Stamp   uint64         `json:"stamp"`
	Token   *tokenWire     `json:"token"`
	Lineage []ancestorWire `json:"lineage"` // by key
	Issued  *instantWire   `json:"issued"`
	Until   *instantWire   `json:"until,omitempty"` // left out if zero
	Keep    time.Duration  `json:"keep"`

	Challenge []paramWire `json:"challenge,omitempty"` // by name
}

type paramWire struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

type tokenWire struct {
	Access  []byte         `json:"access"`
	Type    []byte         `json:"type"`
	Refresh []byte         `json:"refresh"`
	Expiry  *instantWire   `json:"expiry"`
	Extra   map[string]any `json:"extra"`

	// Cookies is the encoding of internal/loginjar, left out without cookies.
	Cookies json.RawMessage `json:"cookies,omitempty"`
}

type ancestorWire struct {
	Key   []byte `json:"key"`
	Stamp uint64 `json:"stamp"`
}

// instantWire is a time of any year. The zero Time goes as null.
type instantWire struct {
	Sec  int64 `json:"s"`
	Nsec int64 `json:"ns"`
}

// Errors of the encoding quote nothing of the record. So no error wraps an error of
// encoding/json, which would quote the input.
var (
	errRecordStamp   = errors.New("requestforge: storage: a stamp is not below 2^53")
	errRecordToken   = errors.New("requestforge: record: no token")
	errRecordSize    = fmt.Errorf("requestforge: record: larger than %d MiB", maxRecordSize>>20)
	errRecordDepth   = errors.New("requestforge: record: Extra is nested too deeply")
	errRecordVersion = errors.New("requestforge: record: not a record, or of an unknown version")
	errRecordCookies = errors.New("requestforge: record: the cookies of the token can't be stored")
	errRecordDamaged = errors.New("requestforge: record: damaged")
)

// MarshalBinary encodes r, secrets included: for a [Storage], and never for people to read.
// (encoding/gob uses MarshalBinary, too.)
//
// The encoding is exact: [Record.UnmarshalBinary] returns every byte of key and token, every
// digit of a number in Extra, and times as the same instant, in UTC. With the same version of
// Go, equal records have the same encoding. A value in Extra that can't be encoded as JSON,
// or contains a string that isn't UTF-8, is an error, which names the key of Extra. A record
// without a token, a stamp of 2^53 or above, and an encoding of more than 4 MiB are errors,
// too.
func (r Record) MarshalBinary() ([]byte, error) {
	if r.Token == nil {
		return nil, errRecordToken
	}
	if r.Stamp > maxStamp {
		return nil, errRecordStamp
	}
	w := recordWire{
		Key:   []byte(r.Key),
		Stamp: r.Stamp,
		Token: &tokenWire{
			Access:  []byte(r.Token.AccessToken),
			Type:    []byte(r.Token.TokenType),
			Refresh: []byte(r.Token.RefreshToken),
			Expiry:  newInstantWire(r.Token.Expiry),
			Extra:   r.Token.Extra,
		},
		Issued: newInstantWire(r.Issued),
		Until:  newInstantWire(r.Until),
		Keep:   r.Keep,
	}
	if r.Token.jar != nil {
		var err error
		if w.Token.Cookies, err = r.Token.jar.Encode(); err != nil {
			return nil, errRecordCookies
		}
	}
	if r.Lineage != nil {
		w.Lineage = make([]ancestorWire, 0, len(r.Lineage))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Lineage)) {
		if r.Lineage[key] > maxStamp {
			return nil, errRecordStamp
		}
		w.Lineage = append(w.Lineage, ancestorWire{Key: []byte(key), Stamp: r.Lineage[key]})
	}

	for _, name := range slices.Sorted(maps.Keys(r.Challenge)) {
		w.Challenge = append(w.Challenge, paramWire{[]byte(name), []byte(r.Challenge[name])})
	}

	body, err := json.Marshal(w)
	if err != nil {
		return nil, extraError(r.Token.Extra, func(v any) bool {
			_, err := json.Marshal(v)
			return err == nil
		})
	}
	// Check only now: for a value that contains itself the check would never end.
	if !extraIsUTF8(r.Token.Extra) {
		return nil, extraError(r.Token.Extra, extraIsUTF8)
	}
	if len(recordPrefix)+len(body) > maxRecordSize {
		return nil, errRecordSize
	}
	// encoding/json reads no deeper than 10,000 levels, but writes any.
	if !json.Valid(body) {
		return nil, errRecordDepth
	}
	return append([]byte(recordPrefix), body...), nil
}

// UnmarshalBinary decodes the output of [Record.MarshalBinary]. For any other input
// UnmarshalBinary returns an error that quotes nothing of the input, and leaves r unchanged.
func (r *Record) UnmarshalBinary(data []byte) error {
	if len(data) > maxRecordSize {
		return errRecordSize
	}
	body, ok := bytes.CutPrefix(data, []byte(recordPrefix))
	if !ok {
		return errRecordVersion
	}
	var w recordWire
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if dec.Decode(&w) != nil || dec.InputOffset() != int64(len(body)) {
		return errRecordDamaged
	}
	if w.Token == nil {
		return errRecordToken
	}
	expiry, ok1 := w.Token.Expiry.time()
	issued, ok2 := w.Issued.time()
	until, ok4 := w.Until.time()
	if !ok1 || !ok2 || !ok4 {
		return errRecordDamaged
	}
	jar, ok3 := readJar(w.Token.Cookies)
	challenge, ok5 := readChallenge(w.Challenge)
	if !ok3 || !ok5 {
		return errRecordDamaged
	}
	if w.Stamp > maxStamp {
		return errRecordStamp
	}
	lineage, err := readLineage(w.Lineage)
	if err != nil {
		return err
	}
	*r = Record{
		Key: string(w.Key),
		Token: &Token{
			AccessToken:  string(w.Token.Access),
			TokenType:    string(w.Token.Type),
			RefreshToken: string(w.Token.Refresh),
			Expiry:       expiry,
			Extra:        w.Token.Extra,
			jar:          jar,
		},
		Stamp:   w.Stamp,
		Lineage: lineage,
		Issued:  issued,
		Until:   until,
		Keep:    w.Keep,

		Challenge: challenge,
	}
	return nil
}

// readLineage returns the lineage that was written, or nil.
func readLineage(ancestors []ancestorWire) (lineage map[string]uint64, err error) {
	if ancestors != nil {
		lineage = make(map[string]uint64, len(ancestors))
	}
	for _, a := range ancestors {
		if a.Stamp > maxStamp {
			return nil, errRecordStamp
		}
		if _, dup := lineage[string(a.Key)]; dup {
			return nil, errRecordDamaged
		}
		lineage[string(a.Key)] = a.Stamp
	}
	return lineage, nil
}

// readChallenge returns the Challenge that was written, or nil.
func readChallenge(params []paramWire) (challenge map[string]string, ok bool) {
	for _, p := range params {
		if challenge == nil {
			challenge = make(map[string]string, len(params))
		}
		if _, dup := challenge[string(p.Name)]; dup {
			return nil, false
		}
		challenge[string(p.Name)] = string(p.Value)
	}
	return challenge, true
}

// readJar returns the jar that was written as text, or nil.
func readJar(text json.RawMessage) (jar *loginjar.Jar, ok bool) {
	if text == nil {
		return nil, true
	}
	jar, err := loginjar.Decode(text)
	return jar, err == nil
}

// String describes r without its token.
func (r Record) String() string {
	token, expiry := "<nil>", time.Time{}
	if r.Token != nil {
		token, expiry = redact.Mask, r.Token.Expiry
	}
	return fmt.Sprintf("Record{Key:%q Token:%s Expiry:%s Stamp:%d Lineage:%v Issued:%s Keep:%s}",
		r.Key, token, expiry.Format(time.RFC3339Nano), r.Stamp, r.Lineage, r.Issued.Format(time.RFC3339Nano), r.Keep)
}

// Format writes r.String, whatever the verb.
func (r Record) Format(f fmt.State, _ rune) { io.WriteString(f, r.String()) }

// LogValue returns r.String.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalJSON returns r.String as a JSON string: JSON gets into logs. To
// store a record use [Record.MarshalBinary].
func (r Record) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// MarshalText returns String, for XML and the like.
func (r Record) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// extraError names the first key of extra whose value isn't ok.
func extraError(extra map[string]any, ok func(v any) bool) error {
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		if !utf8.ValidString(key) || !ok(extra[key]) {
			return fmt.Errorf("requestforge: record: Extra[%q] (%T) can't be stored as JSON", key, extra[key])
		}
	}
	return errors.New("requestforge: record: Extra can't be stored as JSON")
}

// extraIsUTF8 looks for strings in the JSON value v that encoding/json would silently change.
func extraIsUTF8(v any) bool {
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case []any:
		return !slices.ContainsFunc(v, func(v any) bool { return !extraIsUTF8(v) })
	case map[string]any:
		for key, v := range v {
			if !utf8.ValidString(key) || !extraIsUTF8(v) {
				return false
			}
		}
	}
	return true
}

func newInstantWire(t time.Time) *instantWire {
	if t.IsZero() {
		return nil
	}
	return &instantWire{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (i *instantWire) time() (time.Time, bool) {
	if i == nil {
		return time.Time{}, true
	}
	return time.Unix(i.Sec, i.Nsec).UTC(), 0 <= i.Nsec && i.Nsec < 1e9
}
