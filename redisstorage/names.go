// The names of keys and channels in Redis. All names of a pipeline are in the same slot
// of a Cluster.

package redisstorage

import "strings"

// A key is a pipeline's prefix, a colon and a step; the last colon ends the prefix. The
// name of the key in Redis is
//
//	rf:token:{prefix}:step
//
// where the braces make Cluster choose the slot by the prefix alone. In a key without a
// colon, the prefix ends at the first slash, or at the end of the key. A subject's key is
// a step's key followed by a slash and more, so both keys have the same prefix. Braces in
// a prefix are escaped, so that the hash tag ends with the prefix and different keys have
// different names.
func (s *Storage) name(kind, key string) string {
	prefix, step := split(key)
	return s.namespace + ":" + kind + ":{" + tag(prefix) + "}" + step
}

func (s *Storage) tokenName(key string) string   { return s.name("token", key) }
func (s *Storage) lockName(key string) string    { return s.name("lock", key) }
func (s *Storage) failureName(key string) string { return s.name("failure", key) }

// channel returns the channel for the revocations of key's pipeline.
func (s *Storage) channel(key string) string {
	prefix, _ := split(key)
	return s.namespace + ":revoked:{" + tag(prefix) + "}"
}

// split divides key before the last colon, or before the first slash if there is no
// colon.
func split(key string) (prefix, step string) {
	i := strings.LastIndexByte(key, ':')
	if i < 0 {
		i = strings.IndexByte(key, '/')
	}
	if i < 0 {
		return key, ""
	}
	return key[:i], key[i:]
}

// ofSubject reports whether key belongs to a subject of the step whose key is step.
func ofSubject(key, step string) bool {
	more, ok := strings.CutPrefix(key, step)
	return ok && len(more) > 1 && more[0] == '/' && strings.IndexByte(more, ':') < 0
}

var escapes = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D")

// tag returns prefix as a hash tag. Redis ignores an empty tag, so "%" stands for an
// empty prefix; no escaped prefix is "%".
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

// slot is a group of keys in the same slot, which a script can work on together.
type slot struct {
	keys, names []string
	at          []int // where in the caller's list they are
}

// bySlot groups keys by prefix. The keys of a pipeline are one group.
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
