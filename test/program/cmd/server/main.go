// Command server brings half of the standard library into a build: net/http, TLS, JSON.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"

	"example.org/program/checksum"
	"example.org/program/greeting"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		text := greeting.For(r.URL.Query().Get("name"))
		answer := map[string]any{"text": text, "checksum": checksum.Of(text)}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			log.Print(err)
		}
	})
	log.Fatal(http.ListenAndServe(*listen, nil))
}
