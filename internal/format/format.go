// Package format prints values that hold secrets.
package format

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Text writes text for every verb, quoted for %q. It is the Format of whatever
// holds a secret, since each verb would otherwise find a way to the fields.
func Text(s fmt.State, verb rune, text string) {
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	io.WriteString(s, text)
}

// ErrGob is the error of GobEncode for types that hold secrets.
var ErrGob = errors.New("requestforge: encoding/gob would write secrets; a Record's MarshalBinary is the one encoding that may")
