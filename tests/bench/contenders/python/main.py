"""One workload of the benchmark as a loop of confluent-kafka; runs until SIGTERM.

Batches in, one record after the other out, and every 100 ms: flush, then commit what was read.
"""

import argparse
import signal
import sys
import time

import orjson
from confluent_kafka import Consumer, KafkaException, Producer

BATCH = 1000
COMMIT_EVERY = 0.1


def split(value):
    """q22: the first three folders of the URL's path."""
    bid = orjson.loads(value)
    parts = bid["url"].split("/")
    return orjson.dumps(
        {
            "auction": bid["auction"],
            "bidder": bid["bidder"],
            "price": bid["price"],
            "channel": bid["channel"],
            "dir1": parts[3],
            "dir2": parts[4],
            "dir3": parts[5],
        }
    )


def enrich(value):
    """An order line with its total in pence; None where it is no order, or no whole penny."""
    line = orjson.loads(value)
    invoice, quantity, price = line["invoice"], line["quantity"], line["unit_price"]
    if invoice.startswith("C"):
        kind = "cancellation"
    elif invoice[:1].isdigit():
        kind = "adjustment" if quantity < 0 else "sale"
    else:
        return None
    # No price of the data has more than three decimals.
    thousandths = round(price * 1000) * quantity
    if thousandths % 10:
        return None
    return orjson.dumps(
        {
            "invoice": invoice,
            "kind": kind,
            "sku": line["sku"],
            "description": line["description"],
            "quantity": quantity,
            "unit_price": price,
            "total_minor": thousandths // 10,
            "currency": "GBP",
            "customer": line["customer"],
            "country": line["country"],
            "ts": line["ts"],
        }
    )


def transformation(workload):
    """What becomes of a message: a value, or None where nothing does."""
    if workload == "q22":
        return lambda message: split(message.value())
    if workload == "enrich":
        return lambda message: enrich(message.value())
    if workload == "filter-header":
        return lambda message: (
            message.value() if dict(message.headers() or ()).get("class") == b"7" else None
        )
    if workload == "filter-plugin":
        return lambda message: (
            message.value() if orjson.loads(message.value())["bidder"] % 100 == 7 else None
        )
    return lambda message: message.value()


def main():
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "group", "input", "output", "workload"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    transform = transformation(options.workload)

    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": options.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
        }
    )

    running = True

    def stop(_signal, _frame):
        nonlocal running
        running = False

    def delivered(error, _message):
        if error is not None:
            raise KafkaException(error)

    def produce(key, value):
        while True:
            try:
                producer.produce(options.output, value, key, on_delivery=delivered)
                return
            except BufferError:
                producer.poll(0.01)

    def commit():
        producer.flush()
        consumer.commit(asynchronous=False)

    signal.signal(signal.SIGTERM, stop)
    consumer.subscribe([options.input])
    uncommitted = False
    committed_at = time.monotonic()
    while running:
        for message in consumer.consume(BATCH, 0.005):
            if message.error():
                raise KafkaException(message.error())
            value = transform(message)
            if value is not None:
                produce(message.key(), value)
            uncommitted = True
        producer.poll(0)
        if uncommitted and time.monotonic() - committed_at >= COMMIT_EVERY:
            commit()
            uncommitted = False
            committed_at = time.monotonic()
    if uncommitted:
        commit()
    consumer.close()


if __name__ == "__main__":
    sys.exit(main())
