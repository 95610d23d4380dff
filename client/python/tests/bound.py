"""A token that is bound to a key, and a daemon that lets few calls through: ADDRESS, CA, TOKEN_FILE, PROOF_KEY in the environment."""

import os
import unittest

import strongroom
from strongroom import Client, ProofKey

KEY = os.environ["PROOF_KEY"]


def client(**more):
    more = {"token_file": os.environ["TOKEN_FILE"], **more}
    return Client(os.environ["ADDRESS"], ca_file=os.environ["CA"], **more)


class Bound(unittest.TestCase):
    def test_each_call_is_proved(self):
        with client(proof_key=KEY) as mine:
            self.assertEqual(mine.get("kv/bound/a").text("value"), "x")
            self.assertEqual(mine.fetch(["kv/bound/a"])[0].text("value"), "x")
        # The first call of a client learns the nonce, also when it is a stream.
        for wait in (True, False):
            with client(proof_key=ProofKey.read(KEY)) as mine, mine.watch(["kv/bound/a"]) as stream:
                self.assertTrue(not wait or stream.is_open())
                self.assertEqual(next(stream).delivered.text("value"), "x")

    def test_without_the_key_the_token_is_of_no_use(self):
        made = ProofKey.generate()
        self.assertEqual(ProofKey(made.pem()).pem(), made.pem())
        self.assertNotIn("BEGIN", f"{made} {made!r}")
        for thief in (client(), client(proof_key=made)):
            with thief, self.assertRaises(strongroom.Unauthenticated) as refused:
                thief.get("kv/bound/a")
            self.assertEqual(refused.exception.reason, "POSSESSION")
        with client(proof_key=made) as thief, thief.watch(["kv/bound/a"]) as stream:
            self.assertFalse(stream.is_open())
            with self.assertRaises(strongroom.Unauthenticated):
                next(stream)
        with self.assertRaises(ValueError):
            Client("unix:/nowhere", proof_key=made)
        with self.assertRaises(ValueError):
            ProofKey(b"rubbish")

    def test_what_the_daemon_says_is_waited_for(self):
        with client(proof_key=KEY) as mine:
            for _ in range(10):
                self.assertEqual(mine.get("kv/bound/a").text("value"), "x")
        # Whoever has no time to wait is told; on a busy machine its time may be over before that.
        with client(proof_key=KEY, timeout=1.5) as hasty, self.assertRaises(strongroom.Exhausted) as refused:
            for _ in range(50):
                try:
                    hasty.get("kv/bound/a")
                except strongroom.Unavailable:
                    pass
        self.assertEqual(refused.exception.reason, "RATE_LIMITED")
        self.assertGreater(refused.exception.retry_after, 0)


if __name__ == "__main__":
    unittest.main()
