// A chat backend in Go: rooms over `tcp`, two bytes of length before each message, PROXY v2 first. Standard library alone.
//
//	go run chat.go [HOST:PORT]
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sort"
	"strings"
	"sync"
)

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	fieldConv = 0xE0
	help      = "/join ROOM, /who, /quit; anything else is said to the room"
	queue     = 64
)

// player is one session: the gateway's connection for one KCP client.
type player struct {
	name, room string
	lines      chan string
}

var (
	mutex sync.Mutex
	rooms = map[string]map[*player]bool{}
)

// tell queues a line; one who does not read misses what the others say, and nobody waits for them.
func (p *player) tell(line string) {
	select {
	case p.lines <- line:
	default:
	}
}

func say(room, line string) {
	for p := range rooms[room] {
		p.tell(line)
	}
}

// move takes a player from one room to another; an empty name is none.
func move(p *player, room string) {
	mutex.Lock()
	defer mutex.Unlock()
	if p.room != "" {
		delete(rooms[p.room], p)
		say(p.room, "* "+p.name+" left")
		if len(rooms[p.room]) == 0 {
			delete(rooms, p.room)
		}
	}
	if p.room = room; room != "" {
		if rooms[room] == nil {
			rooms[room] = map[*player]bool{}
		}
		rooms[room][p] = true
		say(room, "* "+p.name+" joined "+room)
	}
}

func who(p *player) string {
	mutex.Lock()
	defer mutex.Unlock()
	var names []string
	for other := range rooms[p.room] {
		names = append(names, other.name)
	}
	sort.Strings(names)
	return "* in " + p.room + ": " + strings.Join(names, ", ")
}

// readProxy reads the PROXY header: who the client is, and the number of its conversation.
func readProxy(r io.Reader) (client string, conv uint32, err error) {
	head := make([]byte, 16)
	if _, err = io.ReadFull(r, head); err != nil {
		return
	}
	size := map[byte]int{1: 4, 2: 16}[head[13]>>4]
	body := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if string(head[:12]) != signature || head[12] != 0x21 || size == 0 || len(body) < 2*size+4 {
		return "", 0, errors.New("no PROXY header")
	}
	if _, err = io.ReadFull(r, body); err != nil {
		return
	}
	client = fmt.Sprintf("%s port %d", net.IP(body[:size]), binary.BigEndian.Uint16(body[2*size:]))
	for fields := body[2*size+4:]; len(fields) >= 3; {
		end := 3 + int(binary.BigEndian.Uint16(fields[1:]))
		if end > len(fields) {
			return "", 0, errors.New("a PROXY field beyond its header")
		}
		if fields[0] == fieldConv && end == 7 {
			conv = binary.BigEndian.Uint32(fields[3:])
		}
		fields = fields[end:]
	}
	return
}

func readLine(r io.Reader) (string, error) {
	var length uint16
	if err := binary.Read(r, binary.BigEndian, &length); err != nil {
		return "", err
	}
	line := make([]byte, length)
	_, err := io.ReadFull(r, line)
	return strings.TrimSpace(string(line)), err
}

func first(text string, n int, otherwise string) string {
	if text == "" {
		return otherwise
	}
	if letters := []rune(text); len(letters) > n {
		return string(letters[:n])
	}
	return text
}

func serve(conn net.Conn) {
	reader := bufio.NewReader(conn)
	client, conv, err := readProxy(reader)
	if err != nil {
		log.Print("refused: ", err)
		conn.Close()
		return
	}
	name, err := readLine(reader)
	p := &player{name: first(name, 16, "nobody"), lines: make(chan string, queue)}
	go func() {
		defer conn.Close()
		for line := range p.lines {
			message := append([]byte{byte(len(line) >> 8), byte(len(line))}, line...)
			if _, err := conn.Write(message); err != nil {
				return
			}
		}
	}()
	if err == nil {
		log.Printf("%s: %s, conversation %d", p.name, client, conv)
		p.tell("welcome, " + p.name + ". " + help)
		move(p, "lobby")
	}
	for err == nil {
		var line string
		switch line, err = readLine(reader); {
		case err != nil || line == "":
		case strings.HasPrefix(line, "/join "):
			move(p, first(strings.TrimSpace(line[6:]), 16, "lobby"))
		case line == "/who":
			p.tell(who(p))
		case line == "/quit":
			p.tell("bye")
			err = io.EOF
		case line[0] == '/':
			p.tell(help)
		default:
			mutex.Lock()
			say(p.room, first(p.name+": "+line, 16000, ""))
			mutex.Unlock()
		}
	}
	move(p, "")
	// Out of every room, nobody else sends to it.
	close(p.lines)
}

func main() {
	addr := "127.0.0.1:7000"
	if len(os.Args) > 1 {
		addr = os.Args[1]
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	log.Print("chat in Go on ", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(conn)
	}
}
