// Command pause is the first process of every pod of the test cluster. It holds the pod's namespaces open, and ends when
// it is told to.
package main

import (
	"context"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	<-ctx.Done()
}
