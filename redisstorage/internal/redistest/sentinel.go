package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// Sentinel is a primary, a replica and three sentinels that watch both.
type Sentinel struct {
	Primary, Replica *Node // as they were in the beginning
	Sentinels        []*Node
}

// Name is the sentinels' name for the primary.
const Name = "primary"

// StartSentinel starts a Sentinel, and waits until all servers know each other.
func StartSentinel(dir string) (_ *Sentinel, err error) {
	s := new(Sentinel)
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.Primary, err = Start(dir); err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(s.Primary.Addr)
	if s.Replica, err = Start(dir, "--replicaof", host+" "+port); err != nil {
		return nil, err
	}
	if err = until("the replica is in step", func(ctx context.Context) error { return inStep(ctx, s.Replica) }); err != nil {
		return nil, err
	}
	for range 3 {
		n, err := start(dir, func(n *Node, own int) error {
			conf := filepath.Join(n.dir, "sentinel.conf")
			n.args = []string{conf, "--sentinel"}
			return os.WriteFile(conf, fmt.Appendf(nil, `port %d
bind 127.0.0.1
dir %s
sentinel monitor %s %s %s 2
sentinel down-after-milliseconds %[3]s 1000
sentinel failover-timeout %[3]s 3000
`, own, n.dir, Name, host, port), 0o600)
		})
		if err != nil {
			return nil, err
		}
		s.Sentinels = append(s.Sentinels, n)
	}
	for _, n := range s.Sentinels {
		err = until("the sentinels know each other", func(ctx context.Context) error {
			info, err := n.Client().Info(ctx, "sentinel").Result()
			if err == nil && !strings.Contains(info, "status=ok,address="+s.Primary.Addr+",slaves=1,sentinels=3") {
				err = errors.New("not yet")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// inStep returns an error until n is a replica with all data of its primary.
func inStep(ctx context.Context, n *Node) error {
	info, err := n.Client().Info(ctx, "replication").Result()
	if err == nil && !strings.Contains(info, "master_link_status:up") {
		err = errors.New("the link is not up")
	}
	return err
}

// Addrs returns the addresses of the sentinels.
func (s *Sentinel) Addrs() []string { return addrs(s.Sentinels) }

// Close ends all of them.
func (s *Sentinel) Close() error {
	all := s.Sentinels
	for _, n := range []*Node{s.Primary, s.Replica} {
		if n != nil {
			all = append(all, n)
		}
	}
	return closeAll(all)
}

func addrs(nodes []*Node) []string {
	all := make([]string, len(nodes))
	for i, n := range nodes {
		all[i] = n.Addr
	}
	return all
}
