package millstream.bench;

import java.math.BigDecimal;

import com.fasterxml.jackson.annotation.JsonProperty;

/** An order line with its total in pence. */
record Order(
    String invoice,
    String kind,
    String sku,
    String description,
    long quantity,
    @JsonProperty("unit_price") BigDecimal unitPrice,
    @JsonProperty("total_minor") long totalMinor,
    String currency,
    Long customer,
    String country,
    String ts) {

    /** An order line as the shop writes it. */
    record Line(
        String invoice,
        String sku,
        String description,
        long quantity,
        String ts,
        @JsonProperty("unit_price") BigDecimal unitPrice,
        Long customer,
        String country) {
    }

    /** Null where the line is no order, or its total no whole penny. */
    static Order enriched(Line line) {
        String kind = kind(line);
        if (kind == null) {
            return null;
        }
        try {
            long total = line.unitPrice.multiply(BigDecimal.valueOf(line.quantity)).movePointRight(2).longValueExact();
            return new Order(line.invoice, kind, line.sku, line.description, line.quantity, line.unitPrice, total,
                "GBP", line.customer, line.country, line.ts);
        } catch (ArithmeticException notExact) {
            return null;
        }
    }

    private static String kind(Line line) {
        if (line.invoice.startsWith("C")) {
            return "cancellation";
        }
        if (line.invoice.isEmpty() || !Character.isDigit(line.invoice.charAt(0))) {
            return null;
        }
        return line.quantity < 0 ? "adjustment" : "sale";
    }
}
