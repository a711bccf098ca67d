// The checks of New: the server's role, version and scripts, and the permissions of the
// client's user. And the meaning of the server's errors.

package redisstorage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// checkTimeout bounds how long New waits for Redis.
const checkTimeout = 500 * time.Millisecond

// check returns an error if Redis answers and lacks an ability that the scripts need. A
// missing answer is no error, and neither is a passing failure.
func (s *Storage) check() error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	_, err := await(ctx, func() (struct{}, error) { return struct{}{}, s.ask(ctx) })
	if mistake := (*mistakeError)(nil); errors.As(err, &mistake) {
		return mistake
	}
	return nil
}

// A mistakeError is a mistake that waiting doesn't repair.
type mistakeError struct{ text string }

func (e *mistakeError) Error() string { return "requestforge: redisstorage: " + e.text }

// ask is check without a bound.
func (s *Storage) ask(ctx context.Context) error {
	if c, ok := s.client.(*redis.Client); ok {
		// A FailoverClient doesn't show its options, so ask the server.
		reply, err := c.Do(ctx, "ROLE").Slice()
		if err == nil && len(reply) > 0 && reply[0] == "slave" {
			return &mistakeError{"the client talks to a replica, where a revoked token lives on until it has caught up; use a client that talks to the primary, without ReplicaOnly"}
		}
	}
	names, channel := []string{s.name("probe", "")}, s.channel("")
	reply, err := s.client.Eval(ctx, probeSource, names, channel).Slice()
	if err == nil {
		// If the other scripts are already on the server, a call needs EVALSHA alone, so
		// check EVALSHA, too.
		err = s.client.EvalSha(ctx, probeScript.Hash(), names, channel).Err()
	}
	if err != nil {
		return s.diagnose(ctx, err)
	}
	if len(reply) > 0 {
		return &mistakeError{fmt.Sprintf(
			"the user of Redis can't use %.200s on the keys ~%s:* and the channels &%[2]s:*; grant that, the package documentation has the whole list", strings.Trim(fmt.Sprint(reply), "[]"), s.namespace)}
	}
	return nil
}

// diagnose names the missing permission or setting when the probe didn't run at all.
func (s *Storage) diagnose(ctx context.Context, err error) error {
	var server redis.Error
	if !errors.As(err, &server) {
		return err
	}
	code, why := codeOf(server), cause(server.Error())
	switch {
	case code == "NOPERM":
		return &mistakeError{fmt.Sprintf(
			"the user of Redis lacks a permission%s; grant it, with the keys ~%s:* and the channels &%[2]s:*: the package documentation has the whole list", command(server), s.namespace)}
	case code == "NOAUTH", code == "WRONGPASS", code == "READONLY":
		return &mistakeError{"Redis says " + code + ": " + hints[code]}
	case why == causeFlags:
		return &mistakeError{"Redis says ERR: " + string(why) + s.version(ctx)}
	case why == causeNoCluster, why == causeNoPassword, why == causeUnknown, why == causeDatabase:
		return &mistakeError{"Redis says ERR: " + string(why)}
	case code == "ERR":
		// Servers that don't know "#!lua" say so in many wordings, so try a script
		// without that line.
		var plain redis.Error
		switch err := s.client.Eval(ctx, "return 1", []string{s.name("probe", "")}).Err(); {
		case err == nil:
			return &mistakeError{"Redis says ERR: " + string(causeFlags) + s.version(ctx)}
		case errors.As(err, &plain) && cause(plain.Error()) == causeUnknown:
			return &mistakeError{"Redis says ERR: " + string(causeUnknown)}
		}
	}
	return err
}

// version returns the server's version for an error, or "" if INFO doesn't say.
func (s *Storage) version(ctx context.Context) string {
	info, err := s.client.Info(ctx, "server").Result()
	if err != nil {
		return ""
	}
	_, version, _ := strings.Cut(info, "redis_version:")
	end := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if version = version[:max(end, 0)]; version == "" || len(version) > 20 {
		return ""
	}
	return "; this one is " + version
}

// named returns an error that names the operation and the keys. Of the server's error
// only the first word, the code, is kept: the rest may quote arguments, and so a token.
func named(op string, keys []string, err error) error {
	what := "requestforge: redisstorage: " + op + " " + list(keys)
	var server redis.Error
	if !errors.As(err, &server) {
		return fmt.Errorf("%s: %w", what, err)
	}
	code := codeOf(server)
	hint := hints[code]
	if code == "ERR" {
		hint = string(cause(server.Error()))
	}
	if hint != "" {
		return fmt.Errorf("%s: Redis says %q: %s", what, code, hint)
	}
	if code == "" {
		return fmt.Errorf("%s: Redis gave an error of an unknown kind", what)
	}
	return fmt.Errorf("%s: Redis says %q", what, code)
}

// list names the first few keys; a call may have hundreds of keys.
func list(keys []string) string {
	const few = 5
	if len(keys) <= few {
		return fmt.Sprintf("%.200q", keys)
	}
	return fmt.Sprintf("%.200q and %d more", keys[:few], len(keys)-few)
}

// codeOf returns the code in capitals at the beginning of a server's error.
func codeOf(err redis.Error) string {
	code, _, _ := strings.Cut(err.Error(), " ")
	if len(code) > 20 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return ""
	}
	return code
}

var hints = map[string]string{
	"WRONGTYPE":   "something else is stored under the key",
	"READONLY":    "the server is a replica",
	"OOM":         "its memory is used up",
	"NOPERM":      "its user lacks a permission; the package documentation has the list",
	"NOAUTH":      "the client has no password",
	"WRONGPASS":   "the client's password is wrong",
	"LOADING":     "it is still starting",
	"BUSY":        "a script of somebody's runs for too long",
	"CLUSTERDOWN": "a part of the cluster is down",
	"MISCONF":     "it can't write to its disk",
	"NOREPLICAS":  "too few of its replicas are up",
}

// A serverCause is the reason for an ERR of the server, in this package's words.
type serverCause string

const (
	causeFlags      serverCause = `its scripts don't know the line "#!lua"; use Redis 7.0 or later, or a server that is compatible with it`
	causeUnknown    serverCause = "it doesn't know a command that is needed, or the command was disabled; the package documentation has the list"
	causeACL        serverCause = "its user lacks a permission within scripts; the package documentation has the list"
	causeClients    serverCause = "it has no room for another connection; see its maxclients"
	causeNoCluster  serverCause = "the client is for a Cluster, and the server is a single node; use redis.NewClient"
	causeNoPassword serverCause = "the client has a password, and the server takes none"
	causeDatabase   serverCause = "it doesn't have the database of the client's options"
	causeQuota      serverCause = "a quota of its provider is used up"
)

// cause returns the cause of an ERR, or "" for an unknown cause. The server's text may
// quote arguments, so cause keeps no part of the text.
func cause(text string) serverCause {
	text = strings.ToLower(text)
	for _, known := range []struct {
		part  string
		cause serverCause
	}{
		{"can't run this command", causeACL}, // Redis 7.0, within scripts
		{"can't publish to the channel", causeACL},
		{"can't access at least one of the keys", causeACL},
		{"acl failure in script", causeACL}, // later versions
		{"compiling script", causeFlags},
		{"unexpected engine in script shebang", causeFlags},
		{"unexpected flag in script shebang", causeFlags},
		{"unknown command", causeUnknown},
		{"unknown redis command", causeUnknown},
		{"max number of clients", causeClients},
		{"cluster support disabled", causeNoCluster},
		{"without any password configured", causeNoPassword},
		{"no password is set", causeNoPassword},
		{"db index is out of range", causeDatabase},
		{"select is not allowed", causeDatabase},
		{"max daily request limit", causeQuota},
		{"max requests limit", causeQuota},
	} {
		if strings.Contains(text, known.part) {
			return known.cause
		}
	}
	return ""
}

// command returns the command that a NOPERM error names, if New uses the command.
func command(err redis.Error) string {
	for _, c := range []string{"eval", "evalsha", "cluster|slots", "cluster|shards", "command", "ping"} {
		if strings.Contains(err.Error(), "'"+c+"'") {
			return ": " + strings.ToUpper(strings.ReplaceAll(c, "|", " "))
		}
	}
	return ""
}
