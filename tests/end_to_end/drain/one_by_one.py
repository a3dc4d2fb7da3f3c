"""A unit that accepts a connection only when it has answered the one before. SIGTERM ends it at once.

Arguments: port, seconds that an answer takes.
"""

import os
import socket
import sys
import time

port, seconds = int(sys.argv[1]), float(sys.argv[2])
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", port))
listening.listen(64)
body = b"%d %s" % (os.getpid(), os.environ["UNITD_GENERATION"].encode())
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
while True:
    connection, _ = listening.accept()
    with connection:
        if connection.recv(65536):
            time.sleep(seconds)
            connection.sendall(answer)
