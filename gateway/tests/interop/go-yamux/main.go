// A backend for the gateway's yamux tests on HashiCorp's library: what it does with a stream is written in
// gateway/tests/yamux/scenarios.rs. It listens on a loopback port, says which, and serves one connection after another until
// its standard input closes.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"io/ioutil"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/yamux"
)

// backend is what the streams of one connection share.
type backend struct {
	session             *yamux.Session
	released            chan struct{}
	release             sync.Once
	fins, resets, convs uint64
}

// echo: streams do nothing but return what they hear, and nobody commands them.
var echo bool

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 || len(os.Args) == 3 && os.Args[2] != "echo" {
		log.Fatal("usage: go-yamux BACKLOG [echo]")
	}
	echo = len(os.Args) == 3
	backlog, err := strconv.Atoi(os.Args[1])
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(ioutil.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		check(err)
		go serve(conn, backlog)
	}
}

func serve(conn net.Conn, backlog int) {
	config := yamux.DefaultConfig()
	config.AcceptBacklog = backlog
	config.LogOutput = ioutil.Discard
	session, err := yamux.Server(conn, config)
	check(err)
	b := &backend{session: session, released: make(chan struct{})}
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return
		}
		go b.stream(stream)
	}
}

// stream serves one stream. A read or write that fails is what some tests are about: it ends the stream and nothing else.
func (b *backend) stream(stream *yamux.Stream) {
	reader := bufio.NewReaderSize(stream, 4096)
	conv, err := proxyHeader(reader)
	if err != nil {
		return
	}
	atomic.AddUint64(&b.convs, uint64(conv))
	if echo {
		_, _ = io.Copy(stream, reader)
		_ = stream.Close()
		return
	}
	command, err := read(reader)
	if err != nil {
		return
	}
	words := strings.Fields(string(command))
	n := 0
	if len(words) > 1 {
		n, err = strconv.Atoi(words[1])
		check(err)
	}
	switch words[0] {
	case "echo":
		_, _ = io.Copy(stream, reader)
	case "sink":
		sink(stream, reader, n)
	case "hold":
		<-b.released
		sink(stream, reader, n)
	case "release":
		b.release.Do(func() { close(b.released) })
	case "blast":
		for from := 0; from < n; from += 50000 {
			if write(stream, bulk(from, min(50000, n-from))) != nil {
				return
			}
		}
	case "attend", "listen":
		if words[0] == "attend" && write(stream, []byte("here")) != nil {
			return
		}
		if _, err := io.Copy(ioutil.Discard, reader); err == nil {
			atomic.AddUint64(&b.fins, 1)
		} else {
			atomic.AddUint64(&b.resets, 1)
		}
	case "report":
		report := fmt.Sprintf("fin=%d reset=%d conv=%d", atomic.LoadUint64(&b.fins),
			atomic.LoadUint64(&b.resets), atomic.LoadUint64(&b.convs))
		_ = write(stream, []byte(report))
	case "goaway":
		check(b.session.GoAway())
		_ = write(stream, []byte("gone"))
		<-b.released
	case "bye":
		_ = b.session.Close()
	default:
		log.Fatalf("unknown command %q", command)
	}
	_ = stream.Close()
}

// proxyHeader reads a PROXY header, version 2, and returns the conversation in its last field.
func proxyHeader(reader io.Reader) (uint32, error) {
	fixed := make([]byte, 16)
	if _, err := io.ReadFull(reader, fixed); err != nil {
		return 0, err
	}
	if string(fixed[:12]) != "\r\n\r\n\x00\r\nQUIT\n" {
		log.Fatalf("not a PROXY header: %q", fixed)
	}
	rest := make([]byte, binary.BigEndian.Uint16(fixed[14:]))
	if _, err := io.ReadFull(reader, rest); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(rest[len(rest)-4:]), nil
}

func sink(stream io.Writer, reader io.Reader, n int) {
	hash := fnv.New64a()
	for n > 0 {
		part, err := read(reader)
		if err != nil {
			return
		}
		_, _ = hash.Write(part)
		n -= len(part)
	}
	_ = write(stream, []byte(fmt.Sprintf("%016x", hash.Sum64())))
}

func read(reader io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(reader, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(reader, message)
	return message, err
}

func write(writer io.Writer, message []byte) error {
	framed := make([]byte, 4+len(message))
	binary.BigEndian.PutUint32(framed, uint32(len(message)))
	copy(framed[4:], message)
	_, err := writer.Write(framed)
	return err
}

// bulk is byte for byte what the Rust side calls so.
func bulk(from, length int) []byte {
	bytes := make([]byte, length)
	for at := range bytes {
		i := uint64(from + at)
		bytes[at] = byte(i*31 ^ i>>9)
	}
	return bytes
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
