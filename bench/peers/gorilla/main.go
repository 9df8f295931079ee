// Command gorilla is the yardstick peer of the benchmarks: a chat server of the shape that gorilla tutorials
// teach, so that Hubbub's figures stand beside what a developer would otherwise run.
//
// The design is kept as taught and not tuned: a hub goroutine with three channels, a queue of 256 messages and
// two goroutines for each member, one writer call for each message, pings every 54 s. Two things differ, because
// the scenarios need them: every path /rooms/{namespace}/{name} has a hub of its own, made on first use, and the
// log lines for each connect and disconnect are left out, for they would be measured too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

const (
	writeWait      = 10 * time.Second
	sendQueue      = 256
	maxMessageSize = 64 * 1024
)

// client is one member: the hub fills send, the write pump empties it.
type client struct {
	hub  *hub
	conn *websocket.Conn
	send chan []byte
}

// hub owns the member set of one room; only run touches it.
type hub struct {
	clients    map[*client]bool
	broadcast  chan []byte
	register   chan *client
	unregister chan *client
}

func newHub() *hub {
	return &hub{
		clients:    make(map[*client]bool),
		broadcast:  make(chan []byte),
		register:   make(chan *client),
		unregister: make(chan *client),
	}
}

func (h *hub) run() {
	for {
		select {
		case member := <-h.register:
			h.clients[member] = true
		case member := <-h.unregister:
			if h.clients[member] {
				delete(h.clients, member)
				close(member.send)
			}
		case message := <-h.broadcast:
			for member := range h.clients {
				select {
				case member.send <- message:
				default: // its queue is full: it is thrown out
					delete(h.clients, member)
					close(member.send)
				}
			}
		}
	}
}

// readPump hands what the member says to the hub until the connection fails.
func (c *client) readPump(pongWait time.Duration) {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(maxMessageSize)
	extend := func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) }
	c.conn.SetPongHandler(extend)
	if extend("") != nil {
		return
	}
	for {
		_, message, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		c.hub.broadcast <- message
	}
}

// writePump is the only writer of the connection: queued messages one by one, and pings.
func (c *client) writePump(pingPeriod time.Duration) {
	ticker := time.NewTicker(pingPeriod)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case message, open := <-c.send:
			_ = c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if !open {
				_ = c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			w, err := c.conn.NextWriter(websocket.TextMessage)
			if err != nil {
				return
			}
			if _, err := w.Write(message); err != nil {
				return
			}
			if err := w.Close(); err != nil {
				return
			}
		case <-ticker.C:
			_ = c.conn.SetWriteDeadline(time.Now().Add(writeWait))
			if err := c.conn.WriteMessage(websocket.PingMessage, nil); err != nil {
				return
			}
		}
	}
}

// rooms finds the hub of a path.
type rooms struct {
	mu   sync.Mutex
	hubs map[string]*hub
}

func (r *rooms) hub(path string) *hub {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, found := r.hubs[path]
	if !found {
		h = newHub()
		r.hubs[path] = h
		go h.run()
	}
	return h
}

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "host:port to listen on; port 0 takes a free one")
	origins := flag.String("origins", "https://chat.example.com", "comma-separated list of origins let in")
	pongWait := flag.Duration("pong-wait", 60*time.Second, "a member silent for this long is out; pings go out every nine tenths of it")
	flag.Parse()
	allowed := strings.Split(*origins, ",")

	upgrader := websocket.Upgrader{
		ReadBufferSize:  1024,
		WriteBufferSize: 1024,
		CheckOrigin:     func(r *http.Request) bool { return slices.Contains(allowed, r.Header.Get("Origin")) },
	}
	directory := &rooms{hubs: make(map[string]*hub)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rooms/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered already
		}
		member := &client{hub: directory.hub(r.URL.Path), conn: conn, send: make(chan []byte, sendQueue)}
		member.hub.register <- member
		go member.writePump(*pongWait * 9 / 10)
		go member.readPump(*pongWait)
	})

	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())

	server := &http.Server{Handler: mux}
	go func() {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
		<-stop
		deadline, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = server.Shutdown(deadline)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
