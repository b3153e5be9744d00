/* Answers a script of calls with what the C library does, see README.md. Reads the script on stdin, writes the trace to
 * stdout: every line of the script, followed by "> TIME HEX" for each datagram and "= ..." for the state afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ikcp.h"

static IUINT32 now;

static int print_datagram(const char *buf, int len, ikcpcb *kcp, void *user) {
  (void)kcp, (void)user;
  printf("> %u ", now);
  for (int i = 0; i < len; i++) printf("%02x", (unsigned char)buf[i]);
  printf("\n");
  return 0;
}

static long unhex(const char *hex, char *out) {
  long len = 0;
  for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2) out[len++] = (char)byte;
  return len;
}

int main(void) {
  static char line[1 << 16], bytes[1 << 15];
  ikcpcb *kcp = ikcp_create(0x11223344, NULL);
  ikcp_setoutput(kcp, print_datagram);
  while (fgets(line, sizeof line, stdin)) {
    unsigned a, b, c, d;
    fputs(line, stdout);
    if (line[0] == '#' || line[0] == '\n') continue;
    if (sscanf(line, "nodelay %u %u %u %u", &a, &b, &c, &d) == 4) {
      ikcp_nodelay(kcp, (int)a, (int)b, (int)c, (int)d);
    } else if (sscanf(line, "wndsize %u %u", &a, &b) == 2) {
      ikcp_wndsize(kcp, (int)a, (int)b);
    } else if (sscanf(line, "send %u", &a) == 1) {
      memset(bytes, 'a', a);
      ikcp_send(kcp, bytes, (int)a);
    } else if (sscanf(line, "update %u %u", &a, &b) == 2) { /* until, step */
      for (; now < a; ) {
        now += b;
        ikcp_update(kcp, now);
      }
    } else if (strncmp(line, "input ", 6) == 0) {
      ikcp_input(kcp, bytes, unhex(line + 6, bytes));
    } else {
      fprintf(stderr, "unknown call: %s", line);
      return EXIT_FAILURE;
    }
    printf("= una %u nxt %u cwnd %u ssthresh %u incr %u wait %u at %u rto %d\n", kcp->snd_una, kcp->snd_nxt,
           kcp->cwnd, kcp->ssthresh, kcp->incr, kcp->probe_wait, kcp->ts_probe, kcp->rx_rto);
  }
  ikcp_release(kcp);
  return EXIT_SUCCESS;
}
