package millstream.bench;

import java.io.IOException;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** Values of one type as JSON, by Jackson. */
record JsonSerde<T>(ObjectReader reader, ObjectWriter writer) implements Serde<T>, Serializer<T>, Deserializer<T> {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    static <T> JsonSerde<T> of(Class<T> type) {
        return new JsonSerde<>(MAPPER.readerFor(type), MAPPER.writerFor(type));
    }

    @Override
    public byte[] serialize(String topic, T value) {
        try {
            return writer.writeValueAsBytes(value);
        } catch (JsonProcessingException error) {
            throw new SerializationException(error);
        }
    }

    @Override
    public T deserialize(String topic, byte[] json) {
        try {
            return reader.readValue(json);
        } catch (IOException error) {
            throw new SerializationException(error);
        }
    }

    @Override
    public Serializer<T> serializer() {
        return this;
    }

    @Override
    public Deserializer<T> deserializer() {
        return this;
    }

    @Override
    public void configure(java.util.Map<String, ?> settings, boolean isKey) {
    }

    @Override
    public void close() {
    }
}
