package pool

import (
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// What is packed is unpacked, and each order gets its own files.
func TestGuardPacketsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var packet []byte
		var files []int
		var orders []order
		for n := range rapid.IntRange(0, 8).Draw(t, "orders") {
			o := drawOrder(t, n+1, len(files))
			packet = appendOrder(packet, &o)
			files = append(files, o.files...)
			orders = append(orders, o)
		}
		got, err := parseOrders(packet, files)
		if diff := cmp.Diff(orders, got, cmp.AllowUnexported(order{}), cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}

		var reports []report
		packet = nil
		for n := range rapid.IntRange(0, 8).Draw(t, "reports") {
			r := rapid.SampledFrom([]report{
				{PID: 1 << 22}, {Err: "starting x: no such file"}, {Ended: true, Code: 255}, {Ended: true, Signal: syscall.SIGKILL, Code: 255},
			}).Draw(t, "report")
			r.Child = n
			packet = appendReport(packet, &r)
			reports = append(reports, r)
		}
		back, err := parseReports(packet)
		if diff := cmp.Diff(reports, back, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func drawOrder(t *rapid.T, child, file int) order {
	if rapid.Bool().Draw(t, "signal") {
		return order{Child: child, Sig: syscall.SIGTERM}
	}
	o := order{Child: child, Start: true, Timeout: time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "timeout"))}
	for n := range rapid.IntRange(0, maxOwnFiles).Draw(t, "files") {
		o.files = append(o.files, 1000+file+n)
	}
	o.Files = rapid.SliceOfN(rapid.IntRange(-1, len(o.files)-1), 0, 5).Draw(t, "places")
	o.Env = rapid.SliceOfN(rapid.String(), 0, 5).Draw(t, "env")
	return o
}

// A packet that nobody has written is an error and nothing worse.
func TestGuardPacketsThatAreNone(t *testing.T) {
	whole := appendOrder(nil, &order{Child: 1, Start: true, Files: []int{0}, Env: []string{"A=b"}, files: []int{1000}})
	for n := 1; n < len(whole); n++ {
		if _, err := parseOrders(whole[:n], nil); err == nil {
			t.Errorf("%d bytes of %d are no error", n, len(whole))
		}
	}
	if _, err := parseOrders(whole, nil); err == nil {
		t.Error("an order whose file is missing is no error")
	}
	rapid.Check(t, func(t *rapid.T) {
		packet := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "packet")
		if all, err := parseReports(packet); err == nil && len(packet) > 0 && len(all) == 0 {
			t.Fatal("something was nothing")
		}
		for _, o := range readable(parseOrders(packet, nil)) {
			for _, place := range o.Files {
				if place < -1 || place >= len(o.files) {
					t.Fatalf("%+v", o)
				}
			}
		}
	})
}

// readable is what was read before the error, if there was one.
func readable(all []order, _ error) []order { return all }
