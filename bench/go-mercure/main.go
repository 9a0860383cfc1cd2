// Mercure's hub with its transport in memory, for the bench: anybody follows, who has the token publishes.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/dunglas/mercure"
	"go.uber.org/zap"
)

// The bench has a token that is signed with it. It is good on this machine's loopback alone.
const secret = "a-secret-of-the-bench-alone-32-bytes"

func main() {
	hub, err := mercure.NewHub(
		mercure.WithTransport(mercure.NewLocalTransport()),
		mercure.WithAnonymous(),
		mercure.WithPublisherJWT([]byte(secret), "HS256"),
		mercure.WithHeartbeat(15*time.Second),
		mercure.WithWriteTimeout(0),
		mercure.WithDispatchTimeout(0),
		mercure.WithLogger(zap.NewNop()),
	)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listens on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, hub))
}
