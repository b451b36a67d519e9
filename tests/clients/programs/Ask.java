// java.net.http as it comes: on plain http it offers HTTP/2 by "Upgrade: h2c". Arguments: URL, file with the body, folder.
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.zip.GZIPOutputStream;

public class Ask {
    static HttpClient client = HttpClient.newHttpClient();
    static URI url;
    static Path results;

    static HttpRequest request(BodyPublisher body, String... headers) {
        HttpRequest.Builder builder = HttpRequest.newBuilder(url).header("Content-Type", "application/json");
        if (headers.length > 0) builder.headers(headers);
        return builder.POST(body).build();
    }

    static void write(String name, HttpResponse<byte[]> answer) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write((answer.statusCode() + "\n").getBytes());
        out.write(answer.body());
        Files.write(results.resolve(name), out.toByteArray());
    }

    public static void main(String[] arguments) throws Exception {
        url = URI.create(arguments[0]);
        Path file = Path.of(arguments[1]);
        results = Path.of(arguments[2]);
        byte[] body = Files.readAllBytes(file);
        for (int i = 0; i < 20; i++) {
            write("plain", client.send(request(BodyPublishers.ofByteArray(body)), BodyHandlers.ofByteArray()));
        }
        write("chunked", client.send(request(BodyPublishers.ofInputStream(() -> {
            try { return new FileInputStream(file.toFile()); } catch (Exception error) { throw new RuntimeException(error); }
        })), BodyHandlers.ofByteArray()));
        ByteArrayOutputStream packed = new ByteArrayOutputStream();
        try (GZIPOutputStream packer = new GZIPOutputStream(packed)) { packer.write(body); }
        write("gzip", client.send(request(BodyPublishers.ofByteArray(packed.toByteArray()), "Content-Encoding", "gzip"),
            BodyHandlers.ofByteArray()));
        List<CompletableFuture<HttpResponse<byte[]>>> many = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            many.add(client.sendAsync(request(BodyPublishers.ofByteArray(body)), BodyHandlers.ofByteArray()));
        }
        for (CompletableFuture<HttpResponse<byte[]>> each : many) write("together", each.get());
    }
}
