// Command go-presence is an application on xtaci/kcp-go, unchanged, that does as it is told: it reads orders as lines from its
// standard input and answers each with the line "done".
//
//	echo     send one message and get it back
//	restart  forget the session without a word, begin another with the same conversation from the same port, and echo
//
// Between orders it is an error when a message arrives that nobody asked for.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/xtaci/kcp-go"
)

const conv = 0x0A5CED

var message = []byte("hello")

func main() {
	if len(os.Args) != 2 {
		fail("usage: go-presence TARGET")
	}
	target, err := net.ResolveUDPAddr("udp", os.Args[1])
	check(err)
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(err)
	local := socket.LocalAddr().String()
	session := begin(target, socket)
	heard := listen(session)

	orders := bufio.NewScanner(os.Stdin)
	told := make(chan string)
	go func() {
		for orders.Scan() {
			told <- orders.Text()
		}
		close(told)
	}()
	for {
		select {
		case order, more := <-told:
			if !more {
				return
			}
			if order == "restart" {
				// Closing the socket first keeps the library from saying anything more in the old session's name.
				check(socket.Close())
				<-heard
				session.Close()
				socket, err = net.ListenPacket("udp", local)
				check(err)
				session = begin(target, socket)
				heard = listen(session)
			}
			_, err := session.Write(message)
			check(err)
			select {
			case echo := <-heard:
				if !bytes.Equal(echo, message) {
					fail(fmt.Sprintf("got %q", echo))
				}
			case <-time.After(30 * time.Second):
				fail("no echo")
			}
			fmt.Println("done")
		case unasked := <-heard:
			fail(fmt.Sprintf("a message that nobody asked for: %q", unasked))
		}
	}
}

func begin(target net.Addr, socket net.PacketConn) *kcp.UDPSession {
	session, err := kcp.NewConn3(conv, target, nil, 0, 0, socket)
	check(err)
	session.SetNoDelay(1, 10, 2, 1)
	session.SetWindowSize(256, 256)
	return session
}

// listen passes on what arrives, an empty message included, until the session ends.
func listen(session *kcp.UDPSession) chan []byte {
	heard := make(chan []byte)
	go func() {
		defer close(heard)
		for {
			buffer := make([]byte, 2048)
			n, err := session.Read(buffer)
			if err != nil {
				return
			}
			heard <- buffer[:n]
		}
	}()
	return heard
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "go-presence:", why)
	os.Exit(1)
}
