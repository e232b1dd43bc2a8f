# Runs on the far side. Standard input: for each file the length of its path, its size, the number of
# digests, the path, and the digests of its blocks as they are at the other end. Standard output: for each
# file the blocks with another digest, as runs, and at the end its size and time as they are then.
import hashlib
import os
import stat
import struct
import sys

BLOCK, DIGEST, LONGEST_RUN = 8192, 16, 128
END, ERROR = 0, 0xFFFF


def compare(file, size, digests, write):
    view = memoryview(bytearray(BLOCK * LONGEST_RUN))
    block = same = 0
    while size > 0:
        length = file.readinto(view[: min(size, len(view))])
        if not length:
            return
        size -= length
        start = None
        for at in range(0, length, BLOCK):
            digest = hashlib.sha256(view[at : min(at + BLOCK, length)]).digest()[:DIGEST]
            if digest == digests[block * DIGEST : (block + 1) * DIGEST]:
                if start is not None:
                    write(struct.pack(">IH", same, (at - start) // BLOCK))
                    write(view[start:at])
                    start, same = None, 0
                same += 1
            elif start is None:
                start = at
            block += 1
        if start is not None:
            write(struct.pack(">IH", same, (length - start + BLOCK - 1) // BLOCK))
            write(view[start:length])
            same = 0


def work(files, write):
    while True:
        head = files.read(14)
        if not head:
            return
        path_length, size, count = struct.unpack(">HQI", head)
        path = files.read(path_length)
        digests = files.read(count * DIGEST)
        try:
            # A pipe that took its place must not hold us up, nor a link lead us elsewhere.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:
                now = os.fstat(fd)
                if not stat.S_ISREG(now.st_mode):
                    raise OSError(0, "it is no regular file any more")
                if now.st_size == size:
                    compare(file, size, digests, write)
                now = os.fstat(fd)
                write(struct.pack(">IHQq", 0, END, now.st_size, now.st_mtime_ns))
        except OSError as error:
            message = str(error.strerror).encode("utf-8", "replace")[:1000]
            write(struct.pack(">IHH", 0, ERROR, len(message)) + message)


work(sys.stdin.buffer, sys.stdout.buffer.write)
sys.stdout.buffer.flush()
