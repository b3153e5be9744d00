// An echo server on kcp-go, as its documentation has it: a goroutine for each session. Started by kcp-benches, which pins
// this process and gives it its socket as standard input.
//
// The settings that all servers have: nodelay 1, interval 10 ms, resend 2, nc 1, windows of 256, mtu 1400. A session of
// kcp-go is a stream of bytes; cut at the mss, so messages up to that length come back as they were sent.
package main

import (
	"fmt"
	"log"
	"net"
	"os"

	"github.com/xtaci/kcp-go"
)

// More than any case sends.
const messageMax = 2048

func main() {
	log.SetFlags(0)
	log.SetPrefix("kcp-go: ")
	conn, err := net.FilePacketConn(os.Stdin)
	if err != nil {
		log.Fatalf("standard input is no socket: %v", err)
	}
	listener, err := kcp.ServeConn(nil, 0, 0, conn)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening %v\n", conn.LocalAddr())
	for {
		session, err := listener.AcceptKCP()
		if err != nil {
			log.Fatal(err)
		}
		session.SetNoDelay(1, 10, 2, 1)
		session.SetWindowSize(256, 256)
		session.SetMtu(1400)
		// Written at once; acknowledgements are not flushed for themselves, so they travel with the echo.
		session.SetWriteDelay(false)
		session.SetACKNoDelay(false)
		go echo(session)
	}
}

func echo(session *kcp.UDPSession) {
	buffer := make([]byte, messageMax)
	for {
		length, err := session.Read(buffer)
		if err != nil {
			return
		}
		if _, err := session.Write(buffer[:length]); err != nil {
			return
		}
	}
}
