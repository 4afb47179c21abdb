package flowfabrictest_test

// How the tests of a service look: its handlers, then a test of a few lines for
// each promise it makes.

import (
	"context"
	"errors"
	"testing"
	"time"

	ff "github.com/flowfabric/flowfabric"
	"github.com/flowfabric/flowfabric/flowfabrictest"
	"github.com/flowfabric/flowfabric/worker"
)

type mail struct{ To, Text string }

type receipt struct{ Message string }

var errBusy = errors.New("the mail server is busy")

// mailer sends mail and a reminder a day later.
type mailer struct {
	executions ff.Executions
	send       func(mail) error
}

func (m *mailer) register(w *worker.Worker) {
	worker.Handle(w, "send", func(ctx context.Context, in mail) (receipt, error) {
		if in.To == "" {
			return receipt{}, worker.Permanent(errors.New("nobody to send it to"))
		}
		if err := m.send(in); err != nil {
			return receipt{}, err
		}
		_, err := m.executions.CreateExecution(ctx, ff.CreateExecution{
			Lane: "default", Kind: "remind", Payload: []byte(`{"To":"` + in.To + `"}`), Delay: 24 * time.Hour,
			IdempotencyKey: "remind " + in.To,
		})
		return receipt{"sent to " + in.To}, err
	})
	worker.Handle(w, "remind", func(_ context.Context, in mail) (struct{}, error) { return struct{}{}, m.send(in) })
}

func newMailer(t *testing.T, send func(mail) error) *flowfabrictest.Engine {
	e := flowfabrictest.New(t, flowfabrictest.Options{})
	(&mailer{e.Backend(), send}).register(e.Worker())
	return e
}

func TestMailIsSentWithAReceipt(t *testing.T) {
	e := newMailer(t, func(mail) error { return nil })
	id := e.Submit("send", mail{To: "ann"})
	e.RunAll()
	e.RequireState(id, ff.StateCompleted)
	if got := flowfabrictest.Result[receipt](e, id); got.Message != "sent to ann" {
		t.Errorf("receipt %+v", got)
	}
}

func TestMailIsRetriedWhileTheServerIsBusy(t *testing.T) {
	tries := 0
	e := newMailer(t, func(mail) error {
		if tries++; tries < 3 {
			return errBusy
		}
		return nil
	})
	policy := ff.DefaultExecutionPolicy()
	policy.Retry = ff.ExponentialRetry(5, time.Minute, time.Hour)
	id := e.Submit("send", mail{To: "ann"}, func(c *ff.CreateExecution) { c.Policy = policy })
	x := e.RunUntilEnded(id)
	if took := x.CompletedAt.Sub(x.CreatedAt); x.TotalAttempts != 3 || took != 3*time.Minute {
		t.Errorf("%s after %d attempts in %s", x.PublicState(), x.TotalAttempts, took)
	}
}

func TestMailToNobodyFailsAtOnce(t *testing.T) {
	e := newMailer(t, func(mail) error { return nil })
	id := e.Submit("send", mail{})
	e.RunAll()
	e.RequireState(id, ff.StateFailed)
}

func TestOneReminderFollowsADayLater(t *testing.T) {
	var sent []string
	e := newMailer(t, func(m mail) error { sent = append(sent, m.To); return nil })
	e.Submit("send", mail{To: "ann"})
	e.Submit("send", mail{To: "ann"})
	e.RunAll()
	reminder := e.RequireSubmitted("remind")
	e.RequireState(reminder.ID, ff.StateDelayed)
	e.Advance(24 * time.Hour)
	e.RunAll()
	e.RequireState(reminder.ID, ff.StateCompleted)
	if len(sent) != 3 || flowfabrictest.Payload[mail](e, reminder.ID).To != "ann" {
		t.Errorf("sent %v", sent)
	}
}
