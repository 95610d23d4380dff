"""Against a real daemon that the workspace's end-to-end test has started: ADDRESS, CA, TOKEN_FILE, DESCRIPTOR in the environment."""

import os
import threading
import time
import unittest

from google.protobuf import descriptor_pb2

import strongroom
from strongroom import Client, Follow, Want
from strongroom._wire import creds_pb2, delivery_pb2, kv_pb2, lease_pb2, token_pb2, transit_pb2


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

    def test_one_that_is_refused_does_not_end_the_stream(self):
        self.client.put("kv/python/r", {"value": b"one"})
        with self.client.watch(["elsewhere/x", "kv/python/r"]) as stream:
            told = {event.what: event for event in (next(stream), next(stream))}
            self.assertEqual((told["refused"].item, type(told["refused"].error)), (0, strongroom.Denied))
            self.assertEqual((told["refused"].error.reason, told["changed"].item), ("DENIED", 1))
            self.client.put("kv/python/r", {"value": b"two"})
            self.assertEqual(next(stream).delivered.text("value"), "two")
        with self.assertRaises(strongroom.Denied):
            next(self.client.watch(["elsewhere/x"]))

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


class TransitKeys(unittest.TestCase):
    def test_keys_work_for_callers(self):
        with client() as connected:
            transit = connected.transit
            sealed = transit.encrypt("tr-python/aes", b"canary-in-python", context=b"c")
            self.assertEqual(transit.decrypt("tr-python/aes", sealed, context=b"c"), b"canary-in-python")
            again = transit.rewrap("tr-python/aes", sealed, context=b"c")
            self.assertEqual(transit.decrypt("tr-python/aes", again, context=b"c"), b"canary-in-python")
            self.assertNotEqual(again, sealed)
            for wrong, context in ((sealed, b"d"), (b"x" * 80, b"c")):
                with self.assertRaises(strongroom.Invalid) as refused:
                    transit.decrypt("tr-python/aes", wrong, context=context)
                self.assertEqual(refused.exception.reason, "MALFORMED")
            key = transit.data_key("tr-python/aes", size=64, context=b"k")
            self.assertEqual((len(key.plaintext), transit.decrypt("tr-python/aes", key.wrapped, context=b"k")), (64, key.plaintext))
            self.assertNotIn(repr(key.plaintext), repr(key))
            self.assertIsNone(transit.data_key("tr-python/aes", wrapped_only=True).plaintext)
            for name, make in (("sign", transit.sign), ("mac", transit.hmac)):
                made = make(f"tr-python/{name}", b"body")
                self.assertTrue(transit.verify(f"tr-python/{name}", b"body", made))
                self.assertFalse(transit.verify(f"tr-python/{name}", b"bodi", made))
            self.assertIn("BEGIN PUBLIC KEY", transit.public_keys("tr-python/sign")[0])
            with self.assertRaises(strongroom.Conflict):
                transit.sign("tr-python/aes", b"body")
            with self.assertRaises(strongroom.NotFound):
                transit.encrypt("tr-python/absent", b"x")


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

        for module in (creds_pb2, delivery_pb2, kv_pb2, lease_pb2, token_pb2, transit_pb2):
            ours = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(ours)
            # A field that came later does no harm; one that changed does.
            known = shape(theirs[ours.name.rpartition("/")[2]])
            for name, field in shape(ours).items():
                self.assertEqual(field, known.get(name), f"{ours.name} {name}")


if __name__ == "__main__":
    unittest.main()
