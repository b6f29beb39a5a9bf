package millstream.bench;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;

/** What is done to the events. */
final class Workloads {
    /** What q22 needs of a bid. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Bid(long auction, long bidder, long price, String channel, String url) {
        Split split() {
            // Behind the scheme, an empty part and the host.
            String[] parts = url.split("/");
            return new Split(auction, bidder, price, channel, parts[3], parts[4], parts[5]);
        }
    }

    /** What q22 writes. */
    record Split(long auction, long bidder, long price, String channel, String dir1, String dir2, String dir3) {
    }

    /** What the filter needs of a bid. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Bidder(long bidder) {
    }

    private static final byte[] CLASS = "7".getBytes(StandardCharsets.UTF_8);

    private Workloads() {
    }

    static Topology topology(String workload, String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        switch (workload) {
            case "q22" -> builder
                .stream(input, Consumed.with(Serdes.ByteArray(), JsonSerde.of(Bid.class)))
                .mapValues(Bid::split)
                .to(output, Produced.with(Serdes.ByteArray(), JsonSerde.of(Split.class)));
            case "enrich" -> builder
                .stream(input, Consumed.with(Serdes.ByteArray(), JsonSerde.of(Order.Line.class)))
                .mapValues(Order::enriched)
                .filter((key, order) -> order != null)
                .to(output, Produced.with(Serdes.ByteArray(), JsonSerde.of(Order.class)));
            case "filter-header" -> bytes(builder, input)
                .processValues(OfOneClass::new)
                .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
            case "filter-plugin" -> {
                JsonSerde<Bidder> json = JsonSerde.of(Bidder.class);
                bytes(builder, input)
                    .filter((key, value) -> json.deserialize(input, value).bidder() % 100 == 7)
                    .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
            }
            case "q0", "q0-100b", "q0-1kib", "q0-64kib" -> bytes(builder, input)
                .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
            default -> throw new IllegalArgumentException("no workload " + workload);
        }
        return builder.build();
    }

    private static KStream<byte[], byte[]> bytes(StreamsBuilder builder, String input) {
        return builder.stream(input, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()));
    }

    /** Lets events of one class pass, by their header. */
    private static final class OfOneClass extends ContextualFixedKeyProcessor<byte[], byte[], byte[]> {
        @Override
        public void process(FixedKeyRecord<byte[], byte[]> event) {
            Header header = event.headers().lastHeader("class");
            if (header != null && Arrays.equals(header.value(), CLASS)) {
                context().forward(event);
            }
        }
    }
}
