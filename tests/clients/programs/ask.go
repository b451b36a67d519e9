// Go's net/http as it comes: it takes answers compressed by gzip unasked. Arguments: URL, file with the body, folder.
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

func ask(url string, body io.Reader, coding string) []byte {
	request, err := http.NewRequest("POST", url, body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if coding != "" {
		request.Header.Set("Content-Encoding", coding)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	return append([]byte(fmt.Sprintf("%d\n", answer.StatusCode)), read...)
}

func main() {
	url, results := os.Args[1], os.Args[3]
	body, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	write := func(name string, answer []byte) {
		if err := os.WriteFile(filepath.Join(results, name), answer, 0o600); err != nil {
			log.Fatal(err)
		}
	}
	for range 20 {
		write("plain", ask(url, bytes.NewReader(body), ""))
	}
	// Of a reader that it does not know it cannot tell the length.
	write("chunked", ask(url, io.MultiReader(bytes.NewReader(body)), ""))
	var packed bytes.Buffer
	packer := gzip.NewWriter(&packed)
	packer.Write(body)
	packer.Close()
	write("gzip", ask(url, &packed, "gzip"))
	var group sync.WaitGroup
	answers := make([][]byte, 20)
	for at := range answers {
		group.Add(1)
		go func() {
			defer group.Done()
			answers[at] = ask(url, bytes.NewReader(body), "")
		}()
	}
	group.Wait()
	for _, answer := range answers {
		write("together", answer)
	}
}
