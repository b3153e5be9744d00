// Command goclient is a KCP client made of xtaci/kcp-go, unchanged: no cipher, no error correction. It opens sessions to
// an echo server, sends each a seeded sequence of messages, and compares what comes back as one byte stream,
// because kcp-go cuts longer writes into messages of its own.
//
// It exits 0 when every byte of every session came back in order before the deadline, 1 otherwise.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"sync"
	"time"

	"github.com/xtaci/kcp-go"
)

// plan says what every session does.
type plan struct {
	target   string
	messages int
	longest  int
	seed     int64
	deadline time.Time
}

// result is what became of one session.
type result struct {
	bytes int
	err   error
}

func main() {
	target := flag.String("target", "", "address of the echo server")
	sessions := flag.Int("sessions", 100, "sessions, each on a socket of its own")
	messages := flag.Int("messages", 12, "messages per session; two of them 1 byte and the longest")
	longest := flag.Int("longest", 100_000, "longest message in bytes")
	timeout := flag.Duration("timeout", 60*time.Second, "when all must be done")
	seed := flag.Int64("seed", time.Now().UnixNano(), "seed of sizes and contents")
	flag.Parse()
	if *target == "" || *messages < 2 || *sessions < 1 {
		flag.Usage()
		os.Exit(2)
	}

	start := time.Now()
	p := plan{*target, *messages, *longest, *seed, start.Add(*timeout)}
	results := make([]result, *sessions)
	var all sync.WaitGroup
	for i := range results {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			results[i] = p.session(i)
		}(i)
	}
	all.Wait()

	total, failed := 0, 0
	for i, r := range results {
		total += r.bytes
		if r.err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "session %d: %v\n", i, r.err)
		}
	}
	fmt.Printf("sessions %d, messages %d, bytes echoed %d, failed %d, seconds %.2f, seed %d\n",
		*sessions, *sessions**messages, total, failed, time.Since(start).Seconds(), *seed)
	if failed > 0 {
		os.Exit(1)
	}
}

// session sends all messages of session i while reading their echoes.
func (p plan) session(i int) result {
	conn, err := kcp.DialWithOptions(p.target, nil, 0, 0)
	if err != nil {
		return result{0, fmt.Errorf("dial: %w", err)}
	}
	defer conn.Close()
	conn.SetNoDelay(1, 10, 2, 1)
	conn.SetWindowSize(256, 256)
	conn.SetMtu(1400)
	conn.SetACKNoDelay(i%2 == 0)
	conn.SetDeadline(p.deadline)

	messages := p.script(i)
	written := make(chan error, 1)
	go func() {
		for _, message := range messages {
			if _, err := conn.Write(message); err != nil {
				written <- fmt.Errorf("write: %w", err)
				return
			}
		}
		written <- nil
	}()
	want := bytes.Join(messages, nil)
	n, err := compare(conn, want)
	if err != nil {
		return result{n, fmt.Errorf("after %d of %d bytes: %w", n, len(want), err)}
	}
	return result{n, <-written}
}

// script makes the messages of session i: 1 byte, the longest, and sizes of every magnitude in between.
func (p plan) script(i int) [][]byte {
	random := rand.New(rand.NewSource(p.seed + int64(i)))
	messages := make([][]byte, p.messages)
	for m := range messages {
		size := 1
		switch {
		case m == 1:
			size = p.longest
		case m > 1:
			magnitude := 1 + random.Intn(p.longest)
			size = 1 + random.Intn(magnitude>>uint(random.Intn(16))+1)
		}
		if size > p.longest {
			size = p.longest
		}
		messages[m] = make([]byte, size)
		random.Read(messages[m])
	}
	return messages
}

// compare reads the stream until want came back whole, and says how many bytes were right.
func compare(stream io.Reader, want []byte) (int, error) {
	got := make([]byte, 64<<10)
	at := 0
	for at < len(want) {
		n, err := stream.Read(got)
		if n > len(want)-at {
			return at, fmt.Errorf("%d bytes more than were sent", n-(len(want)-at))
		}
		for k := 0; k < n; k++ {
			if got[k] != want[at+k] {
				return at + k, fmt.Errorf("got byte %#02x, want %#02x", got[k], want[at+k])
			}
		}
		at += n
		if err != nil {
			return at, fmt.Errorf("read: %w", err)
		}
	}
	return at, nil
}
