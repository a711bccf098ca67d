package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Cluster is three primaries, and a replica of each.
type Cluster struct {
	// Nodes are the primaries and then the replicas, in the same order, as
	// they were in the beginning.
	Nodes []*Node
	ids   []string
}

const (
	primaries = 3
	slotCount = 16384
)

// StartCluster starts a Cluster, and waits until all nodes agree on the owner of each
// slot.
func StartCluster(dir string) (_ *Cluster, err error) {
	c := new(Cluster)
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	var buses []int
	for range 2 * primaries {
		var bus int
		n, err := start(dir, func(n *Node, port int) (err error) {
			if bus, err = freePort(); err == nil { // another port each time, too
				n.args = inMemory(n, port,
					"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", "1000",
					"--cluster-config-file", "nodes.conf", "--cluster-replica-validity-factor", "0")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
		buses = append(buses, bus)
	}

	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	host, first, _ := net.SplitHostPort(c.Nodes[0].Addr)
	for i, n := range c.Nodes {
		id, err := n.Client().ClusterMyID(ctx).Result()
		if err != nil {
			return nil, err
		}
		c.ids = append(c.ids, id)
		do := func(args ...any) {
			if err == nil {
				err = n.Client().Do(ctx, args...).Err()
			}
		}
		do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i < primaries {
			do("CLUSTER", "ADDSLOTSRANGE", i*slotCount/primaries, (i+1)*slotCount/primaries-1)
		}
		if i > 0 {
			do("CLUSTER", "MEET", host, first, buses[0])
		}
		if err != nil {
			return nil, err
		}
	}
	for i, n := range c.Nodes[primaries:] {
		// The replica has to know its primary first.
		err = until("the replicas have a primary", func(ctx context.Context) error {
			return n.Client().ClusterReplicate(ctx, c.ids[i]).Err()
		})
		if err != nil {
			return nil, err
		}
	}
	for i, n := range c.Nodes {
		err = until("the cluster is whole", func(ctx context.Context) error {
			if i >= primaries {
				if err := inStep(ctx, n); err != nil {
					return err
				}
			}
			info, err := n.Client().ClusterInfo(ctx).Result()
			if err != nil {
				return err
			}
			view, err := n.Client().ClusterNodes(ctx).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || strings.Count(view, " connected") != len(c.Nodes) ||
				strings.Count(view, "slave ") != primaries || strings.Contains(view, "fail")) {
				err = errors.New("not yet")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string { return addrs(c.Nodes) }

// Slot returns the slot of a key.
func (c *Cluster) Slot(ctx context.Context, key string) (int, error) {
	slot, err := c.Nodes[0].Client().ClusterKeySlot(ctx, key).Result()
	return int(slot), err
}

// Owner returns the number of the node that owns a slot, as the node asks sees the
// Cluster.
func (c *Cluster) Owner(ctx context.Context, asks, slot int) (int, error) {
	shards, err := c.Nodes[asks].Client().ClusterShards(ctx).Result()
	if err != nil {
		return 0, err
	}
	for _, shard := range shards {
		has := slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool {
			return r.Start <= int64(slot) && int64(slot) <= r.End
		})
		for _, n := range shard.Nodes {
			if i := slices.Index(c.ids, n.ID); has && n.Role == "master" && i >= 0 {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("redistest: nobody has slot %d", slot)
}

// Move moves a slot with its keys from a primary to another primary, as resharding
// does: during the move, a key may be at either. All nodes have to be up.
func (c *Cluster) Move(ctx context.Context, slot, from, to int) error {
	source, target := c.Nodes[from].Client(), c.Nodes[to].Client()
	if err := target.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from]).Err(); err != nil {
		return err
	}
	if err := source.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to]).Err(); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(c.Nodes[to].Addr)
	for {
		keys, err := source.ClusterGetKeysInSlot(ctx, slot, 10).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			if err := source.Do(ctx, "MIGRATE", host, port, key, 0, 5000).Err(); err != nil {
				return err
			}
		}
	}
	// The new owner first: until the other nodes know, they redirect to the new owner.
	for _, i := range append([]int{to, from}, 0, 1, 2) {
		if err := c.Nodes[i].Client().Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to]).Err(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all nodes.
func (c *Cluster) Close() error { return closeAll(c.Nodes) }
