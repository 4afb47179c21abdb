package valkey

import (
	"context"
	"errors"
	"strings"

	"github.com/valkey-io/valkey-go"

	ff "github.com/flowfabric/flowfabric"
)

// call is one call of a function. Builders in functions.go and
// extension_calls.go make them.
type call struct {
	function   string
	keys, args []string
}

func (s *Store) completed(c *call) valkey.Completed {
	return s.client.B().Fcall().Function(c.function).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
}

// do calls a function. When the server has lost its libraries, as after a
// failover or FUNCTION FLUSH, they are loaded and the call is repeated: a missing
// function has done nothing (spec 02 §8.4).
func (s *Store) do(ctx context.Context, c *call) (valkey.ValkeyMessage, error) {
	if err := s.open(); err != nil {
		return valkey.ValkeyMessage{}, err
	}
	m, err := s.client.Do(ctx, s.completed(c)).ToMessage()
	for n := 0; isMissing(err) && n < maxReloads; n++ {
		if err = s.reload(ctx); err == nil {
			m, err = s.client.Do(ctx, s.completed(c)).ToMessage()
		}
	}
	return m, s.lift(ctx, err)
}

var errClosed = ff.NewError(ff.CodeUnavailable, "the store is closed")

// open refuses commands of a closed store: the client of a cluster might still
// send them.
func (s *Store) open() error {
	select {
	case <-s.quit:
		return errClosed
	default:
		return nil
	}
}

// maxReloads bounds how often one call loads the libraries: they may get lost again
// before it is repeated.
const maxReloads = 10

// doMulti makes calls together, in one pipeline per node. Each has its own error.
func (s *Store) doMulti(ctx context.Context, calls []call) []result {
	commands := make([]valkey.Completed, len(calls))
	for i := range calls {
		commands[i] = s.completed(&calls[i])
	}
	results := make([]result, len(calls))
	for i, r := range s.client.DoMulti(ctx, commands...) {
		m, err := r.ToMessage()
		if isMissing(err) {
			m, err = s.do(ctx, &calls[i])
		}
		results[i] = result{m, s.lift(ctx, err)}
	}
	return results
}

type result struct {
	m   valkey.ValkeyMessage
	err error
}

// plain runs a command that is no function.
func (s *Store) plain(ctx context.Context, c valkey.Completed) (valkey.ValkeyMessage, error) {
	if err := s.open(); err != nil {
		return valkey.ValkeyMessage{}, err
	}
	m, err := s.client.Do(ctx, c).ToMessage()
	if valkey.IsValkeyNil(err) {
		err = nil
	}
	return m, s.lift(ctx, err)
}

func isMissing(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && strings.Contains(strings.ToLower(e.Error()), "function not found")
}

// lift makes an error of ours of what the client or the server says.
func (s *Store) lift(ctx context.Context, err error) error {
	if err == nil || valkey.IsValkeyNil(err) {
		return nil
	}
	if _, ours := ff.AsError(err); ours {
		return err
	}
	if ctx.Err() != nil && !errors.Is(err, valkey.ErrClosing) {
		return ctx.Err()
	}
	if errors.Is(err, valkey.ErrClosing) {
		return errClosed
	}
	if e, ok := valkey.IsValkeyErr(err); ok {
		return liftReply(e)
	}
	return ff.Errorf(ff.CodeTransport, "Valkey at %s: %w", s.location, err)
}

// isClusterNode is said of a server that sends its callers to others.
const isClusterNode = "this is a node of a cluster: add cluster=true to the URL (FF_CLUSTER=true)"

// replyAdvice says what to do about the first word of an error of the server
// (spec 02 §7.1), or about the word that phraseAdvice gives it.
var replyAdvice = map[string]struct {
	code   ff.Code
	advice string
}{
	"LOADING":     {ff.CodeUnavailable, "the server is loading its data: retry"},
	"CLUSTERDOWN": {ff.CodeUnavailable, "the cluster is down: retry, and check its nodes"},
	"TRYAGAIN":    {ff.CodeUnavailable, "slots are being moved: retry"},
	"MASTERDOWN":  {ff.CodeUnavailable, "the primary is down: retry"},
	"READONLY":    {ff.CodeUnavailable, "the server is a replica: retry, and check the address"},
	"BUSY":        {ff.CodeUnavailable, "the server runs a long script: retry"},
	"OOM":         {ff.CodeUnavailable, "the server is out of memory: raise maxmemory or delete data"},
	"MISCONF":     {ff.CodeUnavailable, "the server cannot persist and refuses writes: look at its log"},
	"NOREPLICAS":  {ff.CodeUnavailable, "too few replicas are connected: retry"},
	"NOAUTH":      {ff.CodeUnsupportedStore, "the server wants a password: give it in the URL as valkey://user:password@host"},
	"WRONGPASS":   {ff.CodeUnsupportedStore, "the server refuses the user or password"},
	"NOPERM":      {ff.CodeUnsupportedStore, "the user lacks a permission: it needs ACL SETUSER USER " + neededPermissions},
	"MOVED":       {ff.CodeUnsupportedStore, isClusterNode},
	"ASK":         {ff.CodeUnsupportedStore, isClusterNode},
	"KILLED":      {ff.CodeUnavailable, "somebody has ended the function: retry"},
	"SELECT":      {ff.CodeUnsupportedStore, "the server has no database of this number: give another, valkey://HOST/NUMBER, or raise databases"},
	"SENTINEL":    {ff.CodeUnsupportedStore, "the sentinels watch no primary of this name: look at sentinel=NAME (SENTINEL MASTERS lists the names)"},
	"NOSENTINEL":  {ff.CodeUnsupportedStore, "this server is no sentinel: leave out sentinel=, or give the addresses of the sentinels"},
	"CROSSSLOT":   {ff.CodeInternal, "keys of two slots in one call"},
	"WRONGTYPE":   {ff.CodeCorruption, "a key is of another type than FlowFabric writes"},
}

// phraseAdvice says what to do about errors that have no word of their own, by a part
// of their text.
var phraseAdvice = []struct{ phrase, like string }{
	// A function calls a command that the user may not.
	{"ACL failure in script", "NOPERM"},
	{"can't run this command or subcommand", "NOPERM"},
	{"Script killed", "KILLED"},
	{"DB index is out of range", "SELECT"},
	{"No such master with that name", "SENTINEL"},
	{"unknown command 'SENTINEL'", "NOSENTINEL"},
}

// adviceWord is the word under which replyAdvice may know an error.
func adviceWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	for _, p := range phraseAdvice {
		if strings.Contains(text, p.phrase) {
			word = p.like
		}
	}
	return word
}

func liftReply(e *valkey.ValkeyError) error {
	text := firstLine(e.Error())
	if known, ok := replyAdvice[adviceWord(text)]; ok {
		return ff.Errorf(known.code, "%s (%s)", known.advice, text)
	}
	if strings.Contains(text, "WRONGTYPE") || strings.Contains(text, "user_function") || strings.Contains(text, "script") {
		return ff.Errorf(ff.CodeCorruption, "a function met data that it cannot read: %s", text)
	}
	return ff.Errorf(ff.CodeInternal, "the server refuses a command: %s", text)
}

// reply is what a function answered: [1, status, fields…] or [0, code, details…]
// (spec 02 §1).
type reply []valkey.ValkeyMessage

// answer calls a function and gives the fields behind its status, or the error
// that it answered.
func (s *Store) answer(ctx context.Context, c *call) (reply, error) {
	m, err := s.do(ctx, c)
	if err != nil {
		return nil, err
	}
	return readReply(c.function, &m)
}

func readReply(function string, m *valkey.ValkeyMessage) (reply, error) {
	list, err := m.ToArray()
	if err != nil || len(list) < 2 {
		return nil, ff.Errorf(ff.CodeInternal, "%s answered something unexpected", function)
	}
	ok, err := list[0].AsInt64()
	if err != nil {
		return nil, ff.Errorf(ff.CodeInternal, "%s answered something unexpected: %w", function, err)
	}
	if ok == 1 {
		return list[2:], nil
	}
	return nil, refusal(list[1:])
}

// refusal is the error of a failure reply, with all details.
func refusal(list []valkey.ValkeyMessage) error {
	texts := make([]string, len(list))
	for i := range list {
		texts[i], _ = list[i].ToString()
	}
	code, details := ff.Code(texts[0]), texts[1:]
	if code == ff.CodeExecutionNotActive && len(details) >= 4 {
		return ff.NotActive(details[0], details[1], details[2], details[3])
	}
	if base, flow, ok := strings.Cut(texts[0], ":"); ok {
		code, details = ff.Code(base), append([]string{flow}, details...)
	}
	e := ff.NewError(code, strings.Join(details, ", "))
	e.Details = details
	return e
}

// text is a field of a reply; a reply may be short (spec 02 §1.1).
func (r reply) text(i int) string {
	if i >= len(r) {
		return ""
	}
	if n, err := r[i].AsInt64(); err == nil && r[i].IsInt64() {
		return itoa(n)
	}
	t, _ := r[i].ToString()
	return t
}

func (r reply) number(i int) int64 {
	if i >= len(r) {
		return 0
	}
	n, _ := r[i].AsInt64()
	return n
}

// textNumber reads a number that a function answered as a text, which may have the form
// of a fraction.
func textNumber(text string) int64 { return (&fields{}).numberOf("", text) }
