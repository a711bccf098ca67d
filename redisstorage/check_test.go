package redisstorage_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/redisstorage"
	"github.com/requestforge/requestforge/redisstorage/internal/redistest"
)

// documented returns the permissions that the package documentation lists: what
// every server needs, and what a Cluster needs besides.
func documented(t *testing.T) (node, cluster []string) {
	t.Helper()
	source, err := os.ReadFile("storage.go")
	require.NoError(t, err)
	_, list, found := strings.Cut(string(source), "// # Permissions\n")
	require.True(t, found)
	list, _, _ = strings.Cut(list, "\npackage ")
	list, further, found := strings.Cut(list, "for Cluster\n")
	require.True(t, found)
	rules := regexp.MustCompile(`(?m)^//\t(.*)$`)
	words := func(text string) (all []string) {
		for _, line := range rules.FindAllStringSubmatch(text, -1) {
			all = append(all, strings.Fields(line[1])...)
		}
		return all
	}
	return words(list), words(further)
}

// startClusterOfOne starts a cluster that is one node.
func startClusterOfOne(t *testing.T) *redistest.Node {
	t.Helper()
	n := startNode(t, "--cluster-enabled", "yes")
	require.NoError(t, n.Client().Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	eventually(t, "the cluster is up", func() bool {
		return strings.Contains(n.Client().ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
	return n
}

// allow gives the user "app" these permissions and no others.
func allow(t *testing.T, n *redistest.Node, rules ...string) {
	t.Helper()
	args := []any{"ACL", "SETUSER", "app", "reset", "on", ">pw"}
	for _, r := range rules {
		args = append(args, r)
	}
	require.NoError(t, n.Client().Do(t.Context(), args...).Err())
}

// newApp returns a client as the user "app".
func newApp(t *testing.T, n *redistest.Node, cluster bool) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: []string{n.Addr}, Username: "app", Password: "pw", IsClusterMode: cluster, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// The list of the documentation is complete, and has nothing that isn't needed.
func TestDocumentedPermissionsAreThoseThatAreNeeded(t *testing.T) {
	t.Parallel()
	everywhere, further := documented(t)
	for name, c := range map[string]struct {
		start   func(t *testing.T) *redistest.Node
		cluster bool
		rules   []string
	}{
		"single node": {func(t *testing.T) *redistest.Node { return startNode(t) }, false, everywhere},
		"Cluster":     {startClusterOfOne, true, append(append([]string(nil), everywhere...), further...)},
	} {
		t.Run(name, func(t *testing.T) {
			n := c.start(t)
			allow(t, n, c.rules...)
			useAll(t, n, newStorage(t, newApp(t, n, c.cluster), redisstorage.Options{}))
			refused, err := n.Client().Do(t.Context(), "ACL", "LOG").Slice()
			require.NoError(t, err)
			for _, entry := range refused {
				// What go-redis tries and does without, where the server knows it.
				require.Regexp(t, "client[|]setinfo|client[|]maint_notifications", fmt.Sprint(entry))
			}
		})
		t.Run(name+", one missing", func(t *testing.T) {
			n := c.start(t)
			for i, rule := range c.rules {
				switch rule {
				case "+role", "+command":
					continue
				}
				rest := append(append([]string(nil), c.rules[:i]...), c.rules[i+1:]...)
				allow(t, n, rest...)
				var err error
				eventually(t, "New says that "+rule+" is missing", func() bool {
					_, err = redisstorage.New(newApp(t, n, c.cluster), redisstorage.Options{})
					return err != nil
				})
				require.ErrorContains(t, err, "the user of Redis", rule)
				if command, ok := strings.CutPrefix(rule, "+"); ok {
					require.ErrorContains(t, err, strings.ToUpper(strings.ReplaceAll(command, "|", " ")), rule)
				}
				require.ErrorContains(t, err, "~rf:*", rule)
			}
		})
	}
}

// useAll does what a pipeline does, and expects it to work.
func useAll(t *testing.T, n *redistest.Node, s *redisstorage.Storage) {
	t.Helper()
	ctx := t.Context()
	changes := watch(t, s, "p:a")
	r := record("p:a", "x")
	r.Token.Expiry, r.Keep = time.Now().Add(time.Hour), time.Hour
	r.Lineage = map[string]uint64{"p:parent": 1}
	save(t, s, record("p:parent", "x"))
	stamp := save(t, s, r).Record.Stamp
	require.NoError(t, s.Revoke(ctx, "p:a", stamp))
	require.Equal(t, "p:a", next(t, changes))
	remove(t, s, "p:a")
	require.NoError(t, s.SaveFailure(ctx, "p:a", requestforge.Failure{Left: time.Minute}))
	_, err := s.LoadFailure(ctx, "p:a")
	require.NoError(t, err)
	require.NoError(t, s.SaveFailure(ctx, "p:a", requestforge.Failure{}))
	lease, ok := tryLock(t, s)
	require.True(t, ok)
	require.NoError(t, lease.Unlock(ctx))
}

// A server whose scripts know no flags is named by New, before a token is lost.
func TestNewNamesAServerWithoutScriptFlags(t *testing.T) {
	m := miniredis.RunT(t)
	c := redis.NewClient(&redis.Options{Addr: m.Addr(), Protocol: 2})
	defer c.Close()
	_, err := redisstorage.New(c, redisstorage.Options{})
	require.ErrorContains(t, err, "Redis 7.0 or later")
	require.Empty(t, m.Keys())
}

// What New says of a server that answers and will never do.
func TestNewSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	plain := startNode(t)
	closed := startNode(t)
	allow(t, closed, "~*", "&*", "+@all")
	disabled := startNode(t, "--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
	for name, c := range map[string]struct {
		client redis.UniversalClient
		want   string
	}{
		"scripts are disabled":    {redis.NewClient(&redis.Options{Addr: disabled.Addr}), "doesn't know a command"},
		"a wrong password":        {redis.NewClient(&redis.Options{Addr: closed.Addr, Username: "app", Password: "s3cret"}), "password is wrong"},
		"no Cluster":              {redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{plain.Addr}}), "single node"},
		"a database out of range": {redis.NewClient(&redis.Options{Addr: plain.Addr, DB: 99}), "database"},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.client.Close()
			var err error
			eventually(t, "New says so", func() bool {
				_, err = redisstorage.New(c.client, redisstorage.Options{})
				return err != nil
			})
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
	// The probe leaves nothing.
	newStorage(t, newClient(t, "", plain.Addr), redisstorage.Options{})
	require.Zero(t, plain.Client().DBSize(t.Context()).Val())
}

// A permission that is taken away later is named by the calls.
func TestErrorsNameTheirCause(t *testing.T) {
	n := startNode(t)
	everywhere, _ := documented(t)
	allow(t, n, everywhere...)
	s := newStorage(t, newApp(t, n, false), redisstorage.Options{})
	allow(t, n, append(everywhere, "-hset", "-publish")...)
	err := s.Revoke(t.Context(), "p:a", 1)
	require.ErrorContains(t, err, "permission within scripts")
}

// A serverError is what go-redis makes of an error reply.
type serverError string

func (e serverError) Error() string { return string(e) }
func (e serverError) RedisError()   {}

// answering is a server that answers everything with one error.
type answering struct{ err *serverError }

func (a answering) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a answering) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (a answering) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		cmd.SetErr(*a.err)
		return *a.err
	}
}

// What a server says is named in words of ours. What can pass is no mistake of New.
func TestWhatAServerSaysIsNamed(t *testing.T) {
	says := serverError("LOADING")
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer client.Close()
	client.AddHook(answering{&says})
	s := newStorage(t, client, redisstorage.Options{})
	for text, c := range map[serverError]struct {
		want    string
		mistake bool
	}{
		"ERR max number of clients reached":                                {"maxclients", false},
		"ERR max daily request limit exceeded. Limit: 10000, Usage: 10000": {"quota", false},
		"ERR something new, s3cret":                                        {`"ERR"`, false},
		"LOADING Redis is loading the dataset in memory":                   {"starting", false},
		"CLUSTERDOWN Hash slot not served":                                 {"down", false},
		"MISCONF Redis is configured to save RDB snapshots, s3cret":        {"disk", false},
		"OOM command not allowed when used memory > 'maxmemory'.":          {"memory", false},
		"s3cret": {"an error of an unknown kind", false},
		"ERR Error compiling script (new function): user_script:1: near '#'":   {"Redis 7.0", true},
		"ERR unknown command 'EVAL', with args beginning with: 's3cret'":       {"doesn't know a command", true},
		"ERR AUTH <password> called without any password configured":           {"takes none", true},
		"ERR DB index is out of range":                                         {"database", true},
		"ERR This instance has cluster support disabled":                       {"single node", true},
		"NOAUTH Authentication required.":                                      {"no password", true},
		"WRONGPASS invalid username-password pair or user is disabled.":        {"password is wrong", true},
		"NOPERM this user has no permissions to run the 'evalsha' command":     {"permission", true},
		"READONLY You can't write against a read only replica.":                {"replica", true},
		"NOPERM ACL failure in script: User app has no permissions to s3cret.": {"permission", true},
		"ERR ACL failure in script: User app has no permissions to run 'hset'": {"permission", false},
	} {
		t.Run(string(text), func(t *testing.T) {
			says = text
			_, err := redisstorage.New(client, redisstorage.Options{})
			require.Equal(t, c.mistake, err != nil, err)
			_, loadErr := s.Load(t.Context(), "p:a")
			require.NotContains(t, loadErr.Error(), "s3cret")
			require.ErrorContains(t, loadErr, c.want)
			if err != nil {
				require.ErrorContains(t, err, c.want)
				require.NotContains(t, err.Error(), "s3cret")
			}
		})
	}
}
