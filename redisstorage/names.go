// What things are called in Redis. All names of one pipeline are in one slot
// of a Cluster.

package redisstorage

import "strings"

// A key is a pipeline's prefix, a colon and a step; the last colon ends the
// prefix. In Redis it is
//
//	rf:token:{prefix}:step
//
// where the braces make Cluster choose the slot by the prefix alone. A key
// without a colon is all prefix. Braces in a prefix are escaped, so that the
// tag ends where the prefix does and different keys have different names.
func (s *Storage) name(kind, key string) string {
	prefix, step := split(key)
	return s.namespace + ":" + kind + ":{" + tag(prefix) + "}" + step
}

func (s *Storage) tokenName(key string) string   { return s.name("token", key) }
func (s *Storage) lockName(key string) string    { return s.name("lock", key) }
func (s *Storage) failureName(key string) string { return s.name("failure", key) }

// channel is where the revocations of key's pipeline are told.
func (s *Storage) channel(key string) string {
	prefix, _ := split(key)
	return s.namespace + ":revoked:{" + tag(prefix) + "}"
}

// split divides key before its last colon.
func split(key string) (prefix, step string) {
	if i := strings.LastIndexByte(key, ':'); i >= 0 {
		return key[:i], key[i:]
	}
	return key, ""
}

var escapes = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")

// tag is prefix as a hash tag. An empty tag would be none, and % alone is
// nothing's escape.
func tag(prefix string) string {
	if prefix == "" {
		return "%"
	}
	return escapes.Replace(prefix)
}

func sameSlot(a, b string) bool {
	prefixA, _ := split(a)
	prefixB, _ := split(b)
	return prefixA == prefixB
}

// slot is a group of keys that one script can work on.
type slot struct {
	keys, names []string
	at          []int // where in the caller's list they are
}

// bySlot groups keys by prefix. A pipeline has one.
func (s *Storage) bySlot(keys []string) []*slot {
	var slots []*slot
	byPrefix := make(map[string]*slot, 1)
	for i, key := range keys {
		prefix, _ := split(key)
		g := byPrefix[prefix]
		if g == nil {
			g = new(slot)
			byPrefix[prefix] = g
			slots = append(slots, g)
		}
		g.keys = append(g.keys, key)
		g.names = append(g.names, s.tokenName(key))
		g.at = append(g.at, i)
	}
	return slots
}
