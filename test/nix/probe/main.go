// probe runs inside the sandbox of a build and tries everything that a build must not be able to
// do to another build or to the cache. It says what it could do, and fails if that is anything.
//
// usage: probe OWN NAME...
//
// OWN is an output of this build, as a path; NAMEs are names of outputs that another build has and
// this one has not. Only small packages of the standard library are used: each test compiles them anew.
package main

import (
	"os"
	"strings"
	"syscall"
)

// base is where build directories are: /gocache when the hook has mounted this build's own, and
// /gocache/builds when static sandbox paths have mounted the folder of all of them.
var base string

var failures int

func report(what string) {
	failures++
	println("PROBE FAILED: " + what)
}

// refused reports an attempt that did not fail.
func refused(what string, err error) {
	if err == nil {
		report(what + " was possible")
	}
}

func main() {
	own := os.Args[1]
	others := os.Args[2:]
	slash := strings.LastIndexByte(own, '/')
	dir := own[:slash]
	slash = strings.LastIndexByte(dir, '/')
	id := dir[slash+1:]
	base = dir[:slash]
	if _, err := os.ReadFile(own); err != nil {
		report("cannot read an output of its own: " + err.Error())
	}
	if len(others) == 0 {
		report("there is nothing of another build to look for")
	}

	onlyItsOwnIsThere(id)
	othersAreOutOfReach(id, others)
	nothingCanBeChanged(dir, own)
	controlIsOutOfReach(id)
	noOtherBuildCanBeTaken(id)

	if failures > 0 {
		os.Exit(1)
	}
	println("probe: nothing was possible")
}

// onlyItsOwnIsThere checks what is mounted and what can be listed.
func onlyItsOwnIsThere(id string) {
	entries, err := os.ReadDir("/gocache")
	if err != nil {
		report("cannot list /gocache: " + err.Error())
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "client" && name != "run" && "/gocache/"+name != base && "/gocache/"+name != base+"/"+id {
			report("/gocache/" + name + " is there")
		}
	}
	for _, dir := range []string{"/gocache/run", "/gocache/run/build"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			// It need not be listable.
			continue
		}
		for _, entry := range entries {
			if name := entry.Name(); name != "build" && name != "sock" {
				report(dir + "/" + name + " is there")
			}
		}
	}
	if base != "/gocache" {
		_, err := os.ReadDir(base)
		refused("listing "+base, err)
		_, err = os.ReadDir(base + "/" + id + "/..")
		refused("listing "+base+" from below", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		report("cannot read the mounts: " + err.Error())
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], "/gocache") {
			continue
		}
		switch fields[4] {
		case "/gocache/client", "/gocache/run/build":
		case base, base + "/" + id:
		default:
			report(fields[4] + " is mounted")
		}
	}
}

// othersAreOutOfReach looks for another build's outputs, whose names are no secret, wherever a path
// could lead to them.
func othersAreOutOfReach(id string, others []string) {
	flipped := flip(id)
	for _, name := range others {
		for _, dir := range []string{
			base + "/" + id,
			base + "/" + id + "/..",
			base + "/" + id + "/../" + flipped,
			base + "/" + id + "/../../outputs/" + name[:2],
			base + "/" + flipped,
			base + "/" + flipped + "/..",
			"/gocache/builds",
			"/gocache/run/build",
			"/gocache/run/build/..",
			"/gocache/run/build/../..",
			"/gocache/run/build/../../cache/outputs/" + name[:2],
		} {
			_, err := os.Stat(dir + "/" + name)
			refused("looking at another build's "+dir+"/"+name, err)
		}
	}
}

// nothingCanBeChanged tries to change what every build may read.
func nothingCanBeChanged(dir, own string) {
	for _, path := range []string{own, "/gocache/client"} {
		for _, flags := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND} {
			_, err := os.OpenFile(path, flags, 0)
			refused("opening "+path+" for writing", err)
		}
		refused("truncating "+path, os.Truncate(path, 0))
		refused("changing the mode of "+path, os.Chmod(path, 0o777))
		refused("changing the time of "+path, syscall.Utimes(path, make([]syscall.Timeval, 2)))
		refused("removing "+path, os.Remove(path))
		refused("renaming "+path, os.Rename(path, path+"x"))
		refused("taking "+path+" away", os.Rename(path, "/build/taken"))
		// A hard link would be a way to keep a file, or to have it changed later.
		refused("linking "+path, os.Link(path, path+"x"))
		refused("linking "+path+" elsewhere", os.Link(path, "/build/linked"))
	}
	for _, dir := range []string{dir, base, "/gocache", "/gocache/run", "/gocache/run/build"} {
		_, err := os.Create(dir + "/new")
		refused("making a file in "+dir, err)
		refused("making a directory in "+dir, os.Mkdir(dir+"/new-dir", 0o777))
		refused("making a symlink in "+dir, os.Symlink("/etc/passwd", dir+"/new-link"))
		refused("changing the mode of "+dir, os.Chmod(dir, 0o777))
		refused("removing "+dir, syscall.Rmdir(dir))
		refused("renaming "+dir, os.Rename(dir, "/build/moved"))
	}
	refused("removing the socket", os.Remove("/gocache/run/build/sock"))
	refused("replacing the socket", os.Rename(os.Args[0], "/gocache/run/build/sock"))
}

// controlIsOutOfReach looks for the control socket, and asks the build socket what only that one may be asked.
func controlIsOutOfReach(id string) {
	for _, path := range []string{
		"/gocache/run/control/sock",
		"/gocache/run/build/../control/sock",
		"/gocache/run/build/control/sock",
		base + "/" + id + "/../run/control/sock",
		base + "/../run/control/sock",
		"/run/nix-gocacheprog/control/sock",
	} {
		_, err := connect(path)
		refused("reaching "+path, err)
	}
	for _, ask := range []string{
		`{"ask":"register","name":"probe","chroot":null}`,
		`{"version":1,"ask":"register","name":"probe","chroot":null,"build":"` + flip(id) + `"}`,
		`{"ask":"stats"}`,
		`{"ask":"gc"}`,
	} {
		if answer := converse(ask); strings.Contains(answer, `"reply"`) || !isError(answer) {
			report("the build socket answers " + ask + " with " + answer)
		}
	}
}

// noOtherBuildCanBeTaken tries build IDs that are not this build's.
func noOtherBuildCanBeTaken(id string) {
	for _, wrong := range []string{
		flip(id),
		strings.Repeat("0", len(id)),
		strings.Repeat("f", len(id)),
		strings.ToUpper(id) + "0",
		id[:8],
		id[:len(id)-1],
		id + "0",
		id + "/",
		"../" + id,
		id + "/../" + flip(id),
		"",
		".",
		"..",
		"*",
		`\u0000`,
		strings.Repeat("a", 10000),
	} {
		hello := `{"version":1,"build":"` + wrong + `"}`
		if answer := converse(hello); !isError(answer) {
			report("a hello as build " + wrong + " is answered with " + answer)
		}
	}
	// The same way, so that a refusal above is one for the right reason.
	if answer := converse(`{"version":1,"build":"` + id + `"}`); isError(answer) || !strings.Contains(answer, id) {
		report("a hello as the build that it is is answered with " + answer)
	}
}

// flip changes one digit of an ID.
func flip(id string) string {
	last := byte('0')
	if id[len(id)-1] == '0' {
		last = '1'
	}
	return id[:len(id)-1] + string(last)
}

// isError says whether an answer is a refusal: an error, or nothing at all.
func isError(answer string) bool {
	return answer == "" || strings.Contains(answer, `"error":"`)
}

func connect(path string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// converse says one line on the build socket and returns the first thing that comes back, if anything does
// before the connection is closed.
func converse(line string) string {
	fd, err := connect("/gocache/run/build/sock")
	if err != nil {
		report("cannot reach the build socket: " + err.Error())
		return ""
	}
	defer syscall.Close(fd)
	// A daemon that refuses may have closed the connection before it has read all.
	for rest := []byte(line + "\n"); len(rest) > 0; {
		n, err := syscall.SendmsgN(fd, rest, nil, nil, syscall.MSG_NOSIGNAL)
		if err != nil {
			break
		}
		rest = rest[n:]
	}
	answer := make([]byte, 1<<16)
	n, err := syscall.Read(fd, answer)
	if err != nil || n < 0 {
		return ""
	}
	return string(answer[:n])
}
