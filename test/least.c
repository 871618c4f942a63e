/* The least that a GOCACHEPROG can do: it looks up what Go's own cache in the directory $LEAST has and keeps nothing.
   `test/bench command` measures with it what `go` itself pays for any GOCACHEPROG. For well-formed requests only. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* A hash in base64, as requests have it, to hexadecimal, as Go's files are called. */
static void to_hex(const char *base64, char hex[65]) {
    unsigned bits = 0, have = 0, n = 0;
    for (; n < 64; base64++) {
        bits = bits << 6 | (unsigned)(strchr(digits, *base64) - digits);
        for (have += 6; have >= 4 && n < 64; have -= 4)
            hex[n++] = "0123456789abcdef"[bits >> (have - 4) & 15];
    }
    hex[64] = 0;
}

static void to_base64(const char *hex, char base64[45]) {
    unsigned bits = 0, have = 0, n = 0;
    for (; *hex; hex++) {
        bits = bits << 4 | (unsigned)(*hex <= '9' ? *hex - '0' : *hex - 'a' + 10);
        for (have += 4; have >= 6; have -= 6)
            base64[n++] = digits[bits >> (have - 6) & 63];
    }
    base64[n++] = digits[bits << (6 - have) & 63];
    strcpy(base64 + n, "=");
}

/* Answers one request, which is a line. */
static void answer(const char *request, const char *cache) {
    char path[4096], entry[256], action[65], output[65], base64[45], answer[8192];
    const char *id = strstr(request, "\"ID\":"), *key = strstr(request, "\"ActionID\":\"");
    long long number = id ? atoll(id + 5) : 0, size = 0;
    int file = -1, length;
    if (key) {
        to_hex(key + 12, action);
        snprintf(path, sizeof path, "%s/%.2s/%s-a", cache, action, action);
        file = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (file >= 0) {
        ssize_t have = read(file, entry, sizeof entry - 1);
        close(file);
        entry[have > 0 ? have : 0] = 0;
        /* "v1", the action, the output, its size and a time. */
        if (sscanf(entry, "v1 %*64s %64s %lld", output, &size) != 2)
            exit(1);
        to_base64(output, base64);
        length = snprintf(answer, sizeof answer,
                          "{\"ID\":%lld,\"OutputID\":\"%s\",\"Size\":%lld,\"DiskPath\":\"%s/%.2s/%s-d\"}\n", number, base64, size,
                          cache, output, output);
    } else {
        length = snprintf(answer, sizeof answer, "{\"ID\":%lld%s}\n", number, key ? ",\"Miss\":true" : "");
    }
    if (write(1, answer, (size_t)length) != length)
        exit(1);
}

int main(void) {
    static const char greeting[] = "{\"ID\":0,\"KnownCommands\":[\"get\",\"close\"]}\n";
    static char buffer[1 << 16];
    const char *cache = getenv("LEAST");
    size_t have = 0;
    if (!cache || write(1, greeting, sizeof greeting - 1) < 0)
        return 1;
    for (;;) {
        ssize_t more = read(0, buffer + have, sizeof buffer - 1 - have);
        char *line = buffer, *end;
        if (more <= 0)
            return more < 0;
        have += (size_t)more;
        buffer[have] = 0;
        for (; (end = strchr(line, '\n')); line = end + 1) {
            *end = 0;
            if (*line)
                answer(line, cache);
        }
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have + 1);
    }
}
