"""Against a real daemon that the workspace's end-to-end test has started: ADDRESS, CA, TOKEN_FILE, DESCRIPTOR in the environment."""

import os
import threading
import time
import unittest

from google.protobuf import descriptor_pb2

import strongroom
from strongroom import Client, Follow, Want
from strongroom._wire import creds_pb2, delivery_pb2, kv_pb2, lease_pb2, token_pb2


def client(**more):
    return Client(os.environ["ADDRESS"], ca_file=os.environ["CA"], token_file=os.environ["TOKEN_FILE"], **more)


class Calls(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def tearDown(self):
        self.client.close()

    def test_secrets_are_written_and_read(self):
        first = self.client.put("kv/python/a", {"value": b"one", "bytes": b"\x00\xff"})
        second = self.client.put("kv/python/a", {"value": b"canary-in-python"}, cas=first)
        got = self.client.get("kv/python/a")
        self.assertEqual((got.text("value"), got.version, "current" in got.labels), ("canary-in-python", second, True))
        self.assertEqual(self.client.get("kv/python/a", version=first).fields["bytes"], b"\x00\xff")
        self.assertNotIn("canary-in-python", f"{got} {got!r} {got.fields}")
        with self.assertRaises(KeyError):
            got.text("absent")

    def test_refusals_have_their_kind(self):
        with self.assertRaises(strongroom.Conflict) as conflict:
            self.client.put("kv/python/cas", {"value": b"x"}, cas=7)
        self.assertEqual((conflict.exception.reason, len(conflict.exception.request_id)), ("CONFLICT", 32))
        with self.assertRaises(strongroom.NotFound):
            self.client.get("kv/python/absent")
        with self.assertRaises(strongroom.Denied):
            self.client.fetch(["elsewhere/x"])
        with self.assertRaises(strongroom.Invalid):
            self.client.get("kv//x")
        self.client.set_token("srm_at_wrong")
        with self.assertRaises(strongroom.Unauthenticated):
            self.client.get("kv/python/a")
        nowhere = Client("https://127.0.0.1:1", ca_file=os.environ["CA"], timeout=2)
        with self.assertRaises(strongroom.Unavailable):
            nowhere.get("kv/python/a")
        with self.assertRaises(ValueError):
            Client("http://127.0.0.1:1")

    def test_fetch_brings_everything(self):
        self.client.put("kv/python/f", {"value": b"one"})
        secret, account = self.client.fetch(["kv/python/f", Want("pg/readers", ttl_secs=60)])
        self.assertEqual((secret.text("value"), secret.kind, secret.remaining_secs), ("one", "secret", None))
        self.assertEqual(account.kind, "lease")
        self.assertTrue(50 <= account.remaining_secs <= 60)
        self.assertTrue(self.client.renew(account.lease_id)[0] > 0)
        self.assertTrue(self.client.revoke(account.lease_id))
        made = self.client.issue("pg/readers")
        self.assertTrue(self.client.revoke(made.lease_id))

    def test_watch_tells_changes(self):
        self.client.put("kv/python/w", {"value": b"one"})
        with self.client.watch(["kv/python/w"]) as stream:
            first = next(stream)
            self.assertEqual((first.what, first.delivered.text("value")), ("changed", "one"))
            self.client.put("kv/python/w", {"value": b"two"})
            second = next(stream)
            self.assertEqual(second.delivered.text("value"), "two")
        self.client.put("kv/python/w", {"value": b"three"})
        with self.client.watch([Follow("kv/python/w", resume=second.resume)], values=False) as stream:
            third = next(stream)
            self.assertEqual((third.delivered.version, dict(third.delivered.fields)), (3, {}))
        self.assertEqual(list(stream), [])

    def test_held_secrets_stay_fresh(self):
        self.client.put("kv/python/h", {"value": b"one"})
        held = self.client.secrets(["kv/python/h", "pg/python"])
        self.assertEqual(held.get("kv/python/h").text("value"), "one")
        first = held.get("pg/python").text("username")
        self.client.put("kv/python/h", {"value": b"two"})
        self.assertTrue(held.wait_for_change(20))
        self.assertEqual(held.get("kv/python/h").text("value"), "two")
        deadline = time.monotonic() + 30
        while held.get("pg/python").text("username") == first and time.monotonic() < deadline:
            held.wait_for_change(1)
        self.assertNotEqual(held.get("pg/python").text("username"), first, "another account before the end")
        self.assertIsNone(held.stale)
        with self.assertRaises(strongroom.NotFound):
            held.get("kv/other")
        self.assertEqual(held.close(), 0)
        self.assertEqual([thread for thread in threading.enumerate() if thread.name == "strongroom"], [])


class Wire(unittest.TestCase):
    def test_what_is_generated_is_what_the_daemon_speaks(self):
        with open(os.environ["DESCRIPTOR"], "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
        theirs = {file.name.rpartition("/")[2]: file for file in files}

        def shape(file):
            fields = {}
            for message in file.message_type:
                for one in message.field:
                    kind = (one.type, one.type_name, one.label, one.oneof_index if one.HasField("oneof_index") else None)
                    fields[f"{message.name}.{one.name}"] = (one.number, *kind)
            return fields

        for module in (creds_pb2, delivery_pb2, kv_pb2, lease_pb2, token_pb2):
            ours = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(ours)
            # A field that came later does no harm; one that changed does.
            known = shape(theirs[ours.name.rpartition("/")[2]])
            for name, field in shape(ours).items():
                self.assertEqual(field, known.get(name), f"{ours.name} {name}")


if __name__ == "__main__":
    unittest.main()
