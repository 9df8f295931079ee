"""What permessage-deflate would take and give, if a message were compressed once for all members who agreed on the same parameters.

Without context takeover (RFC 7692, 7.1.1), because only then the bytes are the same for all. Prints CPU time a message and the share of
bytes that is left, for chat as programs send it. zlib is the one that Python has; compiled into a gateway it would be the same code.

    python3 bench/experiments/deflate.py
"""

import json
import random
import statistics
import time
import zlib

WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what all were "
    "we when your can said there use an each which she do how their if will up other about out many then them these so some her would "
    "make like him into time has look two more write go see number no way could people my than first water been call who oil its now"
).split()


def chat(size, chance):
    """A message in JSON of about so many bytes."""
    text, message = "", ""
    while len(message) < size:
        text += chance.choice(WORDS) + " "
        message = json.dumps({"id": f"{chance.getrandbits(64):016x}", "user": f"user-{chance.randrange(10000)}", "text": text.strip()})
    return message.encode()


def squeezed(message, level, window, memory):
    """As permessage-deflate has it: flushed, without the four bytes that every flush ends with."""
    squeezer = zlib.compressobj(level, zlib.DEFLATED, -window, memory)
    return (squeezer.compress(message) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def main():
    chance = random.Random(1)
    print(f"zlib {zlib.ZLIB_RUNTIME_VERSION}; CPU µs a message, and the share of bytes that is left")
    for size in (128, 1024, 16384):
        messages = [chat(size, chance) for _ in range(500)]
        # The usual ones, and what needs the least preparation for each message.
        for level, window, memory in ((1, 15, 8), (6, 15, 8), (1, 12, 3)):
            turns = []
            for _ in range(5):
                begun = time.process_time()
                left = sum(len(squeezed(message, level, window, memory)) for message in messages)
                turns.append((time.process_time() - begun) / len(messages) * 1e6)
            share = left / sum(map(len, messages))
            print(f"{size:6} B  level {level}, window 2^{window:<2}  {statistics.median(turns):8.1f} µs  {share:.2f}")


if __name__ == "__main__":
    main()
