package valkey

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// minVersion is the oldest Valkey that works (spec 06 §10).
var minVersion = version{7, 2}

type version struct{ major, minor int }

func (v version) less(o version) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

// boot does what opening takes, in the order of spec 06 §10. Only what time may
// heal is tried again: a server that cannot be reached, is loading, or is too old
// because it is being replaced.
func (s *Store) boot(ctx context.Context, t *Target, o *Options) error {
	limited, cancel := context.WithTimeout(ctx, o.Connect)
	defer cancel()
	err := s.bootIn(limited, t, o)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return s.lift(ctx, errNoAnswer(o.Connect))
	}
	return err
}

func (s *Store) bootIn(ctx context.Context, t *Target, o *Options) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 5*time.Second
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = s.connect(ctx, t)
		if ff.CodeOf(last) == ff.CodeTransport || errors.Is(last, context.DeadlineExceeded) {
			last = t.wrongScheme(ctx, last)
		}
		if code := ff.CodeOf(last); last != nil && code != ff.CodeTransport && code != ff.CodeUnavailable {
			return struct{}{}, backoff.Permanent(last)
		}
		if last != nil {
			s.log.Warn("Valkey is not ready; trying again", "store", s.location, "err", last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(o.Connect))
	if err != nil {
		if last != nil && ctx.Err() == context.DeadlineExceeded {
			return last
		}
		return err
	}
	for _, step := range []func(context.Context, *Options) error{s.checkPermissions, s.configurePartitions, s.loadLibraries, s.seedLanes, s.seedSecret, s.readDurability} {
		if err := step(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// connect dials, once, and checks that a Valkey of a good version answers.
func (s *Store) connect(ctx context.Context, t *Target) error {
	if s.client == nil {
		client, err := valkey.NewClient(t.option)
		if errors.Is(err, context.DeadlineExceeded) {
			err = errNoAnswer(t.option.Dialer.Timeout) // the caller's time is not over
		}
		if err != nil {
			return s.lift(ctx, err)
		}
		s.client = &bounded{Client: client, timeout: t.option.ConnWriteTimeout}
	}
	m, err := s.plain(ctx, s.client.B().Ping().Build())
	if err != nil {
		return err
	}
	if text, _ := m.ToString(); text != "PONG" {
		return ff.Errorf(ff.CodeUnsupportedStore, "unexpected PING response: %.40q", text)
	}
	return s.checkVersion(ctx)
}

// wrongScheme is the error of a connection that cannot be made because the server
// speaks TLS and the URL does not, or the other way round; otherwise err.
func (t *Target) wrongScheme(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(time.Second, t.option.ConnWriteTimeout))
	defer cancel()
	address := t.option.InitAddress[0]
	switch encrypted := t.option.TLSConfig != nil; {
	case !encrypted && speaksTLS(ctx, address):
		return ff.Errorf(ff.CodeUnsupportedStore, "%s speaks TLS: write valkeys:// or add tls=true (FF_TLS=true)", address)
	case encrypted && speaksPlain(ctx, address):
		return ff.Errorf(ff.CodeUnsupportedStore, "%s does not speak TLS: write valkey:// without tls=true (FF_TLS)", address)
	}
	return err
}

// speaksTLS tells whether a server answers a TLS handshake, with whatever certificate.
func speaksTLS(ctx context.Context, address string) bool {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // nothing is sent
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		return c.Close() == nil
	}
	var alert tls.AlertError
	return errors.As(err, &alert)
}

// speaksPlain tells whether a server answers a plain PING, if only with an error.
func speaksPlain(ctx context.Context, address string) bool {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	if end, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(end)
	}
	answer := make([]byte, 1)
	_, err = c.Write([]byte("PING\r\n"))
	if err == nil {
		_, err = io.ReadFull(c, answer)
	}
	return err == nil && (answer[0] == '+' || answer[0] == '-')
}

// checkVersion refuses servers that are not Valkey at once, and those that are too
// old with an error that is worth another try. In a cluster the oldest node counts.
func (s *Store) checkVersion(ctx context.Context) error {
	oldest, text := version{1 << 30, 0}, ""
	for address, node := range s.primaries(ctx) {
		m, err := node.Do(ctx, node.B().Info().Section("server").Build()).ToString()
		if err != nil {
			return s.lift(ctx, err)
		}
		if err := s.checkMode(m); err != nil {
			return err
		}
		v, found, err := parseServerInfo(m)
		if err != nil {
			return ff.Errorf(ff.CodeUnsupportedStore, "%s: %w", address, err)
		}
		if v.less(oldest) {
			oldest, text = v, found
		}
	}
	if oldest.less(minVersion) {
		return ff.Errorf(ff.CodeUnavailable, "valkey_version_too_low: detected %d.%d, required >= %d.%d: upgrade the server",
			oldest.major, oldest.minor, minVersion.major, minVersion.minor)
	}
	s.version = text
	return nil
}

// checkMode refuses a server of another kind than the URL says, by its INFO server.
func (s *Store) checkMode(info string) error {
	switch mode := cmp.Or(infoField(info, "server_mode"), infoField(info, "redis_mode")); {
	case mode == "sentinel":
		return ff.NewError(ff.CodeUnsupportedStore, "this is a sentinel: add sentinel=NAME to the URL, the name of the primary that it watches")
	case mode == "cluster" && !s.cluster:
		return ff.NewError(ff.CodeUnsupportedStore, isClusterNode)
	}
	return nil
}

// checkPermissions refuses a user who may not do what the functions do, before
// anything is written: a function that is stopped half-way is not undone.
func (s *Store) checkPermissions(ctx context.Context, _ *Options) error {
	nodes := s.primaries(ctx)
	if len(nodes) == 0 {
		nodes = s.client.Nodes() // which did not tell whether they are primaries
	}
	for address, node := range nodes {
		var commands []valkey.Completed
		for _, words := range probes {
			// Who may not load functions uses those that are there; only clusters are asked
			// for roles.
			if words[0] != "FUNCTION" && (words[0] != "ROLE" || s.cluster) {
				commands = append(commands, node.B().Arbitrary(words...).Build())
			}
		}
		for _, r := range node.DoMulti(ctx, commands...) {
			if e, ok := valkey.IsValkeyErr(r.Error()); ok && strings.HasPrefix(e.Error(), "NOPERM") {
				return ff.Errorf(ff.CodeUnsupportedStore, "the user lacks a permission at %s: ACL SETUSER %s %s (%s)",
					address, cmp.Or(s.user, "default"), neededPermissions, firstLine(e.Error()))
			} else if r.NonValkeyError() != nil {
				return s.lift(ctx, r.NonValkeyError())
			}
		}
	}
	return nil
}

// primaries are the nodes that take writes, by address.
func (s *Store) primaries(ctx context.Context) map[string]valkey.Client {
	if !s.cluster {
		return map[string]valkey.Client{s.location: s.client}
	}
	nodes := map[string]valkey.Client{}
	for address, node := range s.client.Nodes() {
		role, err := node.Do(ctx, node.B().Role().Build()).ToArray()
		if err != nil || len(role) == 0 {
			continue
		}
		if name, _ := role[0].ToString(); name == "master" {
			nodes[address] = node
		}
	}
	return nodes
}

// parseServerInfo finds the version in INFO server (spec 06 §10.4): Valkey says
// valkey_version; 7.2 says redis_version and server_name.
func parseServerInfo(info string) (v version, text string, err error) {
	var valkeyVersion, redisVersion string
	isValkey := false
	for _, line := range strings.Split(info, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if rest, ok := strings.CutPrefix(line, "valkey_version:"); ok {
			valkeyVersion = rest
		} else if rest, ok := strings.CutPrefix(line, "redis_version:"); ok {
			redisVersion = rest
		}
		isValkey = isValkey || strings.EqualFold(strings.TrimSpace(line), "server_name:valkey")
	}
	text = valkeyVersion
	if text == "" {
		if !isValkey {
			return v, "", fmt.Errorf("this is not Valkey (it calls itself Redis %q): FlowFabric needs Valkey >= 7.2; install it or give another address", redisVersion)
		}
		text = redisVersion
	}
	text = strings.TrimSpace(text)
	major, rest, _ := strings.Cut(text, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if v.major, err = strconv.Atoi(major); err == nil {
		v.minor, err = strconv.Atoi(minor)
	}
	if err != nil {
		return v, "", fmt.Errorf("the version of the server cannot be read (got %q)", text)
	}
	return v, text, nil
}

// configurePartitions seeds the partition counts of an empty store, all in one
// command, or compares them (spec 01 §3.5).
func (s *Store) configurePartitions(ctx context.Context, o *Options) error {
	want := o.Partitions
	counts := []struct {
		name          string
		given, preset uint16
		into          *uint16
	}{
		{"num_flow_partitions", want.Flow, ff.DefaultPartitionConfig.Flow, &s.partitions.Flow},
		{"num_budget_partitions", want.Budget, ff.DefaultPartitionConfig.Budget, &s.partitions.Budget},
		{"num_quota_partitions", want.Quota, ff.DefaultPartitionConfig.Quota, &s.partitions.Quota},
	}
	stored, err := s.partitionHash(ctx)
	if err != nil {
		return err
	}
	if len(stored) == 0 && o.MustExist {
		return ff.Errorf(ff.CodeUnsupportedStore, "there is no store at %s yet: check the address and the number of the database; the first submit, worker or server makes it", s.location)
	}
	if len(stored) == 0 {
		seed := s.client.B().Hset().Key(partitionConfigKey).FieldValue()
		for _, c := range counts {
			n := c.given
			if n == 0 {
				n = c.preset
			}
			seed = seed.FieldValue(c.name, itoa(int64(n)))
		}
		if _, err := s.plain(ctx, seed.Build()); err != nil {
			return err
		}
		if stored, err = s.partitionHash(ctx); err != nil {
			return err
		}
	}
	for _, c := range counts {
		n, err := strconv.ParseUint(stored[c.name], 10, 16)
		if err != nil || n == 0 {
			return ff.Errorf(ff.CodeCorruption, "%s: %s is %.40q, which is no number of partitions", partitionConfigKey, c.name, stored[c.name])
		}
		if c.given != 0 && uint64(c.given) != n {
			return ff.Errorf(ff.CodeUnsupportedStore,
				"partition_mismatch: %s: stored=%d, config=%d. The counts are fixed when a store is first used: configure those, or use an empty store", c.name, n, c.given)
		}
		*c.into = uint16(n)
	}
	return nil
}

func (s *Store) partitionHash(ctx context.Context) (map[string]string, error) {
	m, err := s.client.Do(ctx, s.client.B().Hgetall().Key(partitionConfigKey).Build()).AsStrMap()
	return m, s.lift(ctx, err)
}

func (s *Store) seedLanes(ctx context.Context, o *Options) error { return s.announce(ctx, o.Lanes...) }

// readDurability reads what an acknowledged command survives, and says so once.
func (s *Store) readDurability(ctx context.Context, _ *Options) error {
	worst := ""
	for address, node := range s.primaries(ctx) {
		d := s.nodeDurability(ctx, node)
		if worst == "" || strings.Contains(d, "no append-only file") {
			worst = d
		}
		s.log.Info("durability of the store", "node", address, "durability", d)
		if strings.Contains(d, "no append-only file") {
			s.log.Warn("a crash of Valkey loses acknowledged commands: set appendonly yes and appendfsync everysec or always", "node", address)
		}
	}
	s.durability = worst
	return nil
}

func (s *Store) nodeDurability(ctx context.Context, node valkey.Client) string {
	config, err := node.Do(ctx, node.B().ConfigGet().Parameter("appendonly", "appendfsync", "save", "min-replicas-to-write").Build()).AsStrMap()
	if err != nil {
		return "unknown (CONFIG GET is not allowed)"
	}
	d := "no append-only file"
	if config["appendonly"] == "yes" {
		d = "append-only file, fsync " + config["appendfsync"]
	}
	if config["save"] != "" {
		d += ", snapshots"
	}
	if info, err := node.Do(ctx, node.B().Info().Section("replication").Build()).ToString(); err == nil {
		if n := infoField(info, "connected_slaves"); n != "" && n != "0" {
			d += ", " + n + " replica(s), asynchronous"
		}
	}
	return d
}

func infoField(info, name string) string {
	for _, line := range strings.Split(info, "\n") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return v
		}
	}
	return ""
}
