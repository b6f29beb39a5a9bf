//! The HTTP interface as strangers meet it, byte by byte: what is sent, what is answered, that
//! nothing was written, and that who comes next is served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use millstream_test_support::process::{Running, Site};
use millstream_test_support::wait::Deadline;

const PATIENCE: Duration = Duration::from_secs(120);
/// How long silence is waited for where no answer is expected, or no further one.
const SILENCE: Duration = Duration::from_millis(300);
/// How long an answer may take: far less than the time-outs that would free a place by themselves.
const PROMPT: Duration = Duration::from_secs(12);

const TOKEN: &str = "hunter2";

fn site() -> Result<Site> {
    let site = Site::new()?;
    site.write("token", TOKEN.as_bytes())?;
    site.configure(&format!(
        "[broker]\ndata_dir = \"data\"\nmin_free_disk = \"64MiB\"\n\
         [admin]\nlisten = \"{}\"\ntoken = {{ file = \"token\" }}\n[topics.orders]\npartitions = 1\n",
        site.admin()
    ))?;
    Ok(site)
}

fn connect(site: &Site) -> Result<TcpStream> {
    let stream = TcpStream::connect(site.admin())?;
    stream.set_write_timeout(Some(PROMPT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What comes until the other side closes or is silent: for `PROMPT` before the first byte, for
/// `SILENCE` after it.
fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let patience = if bytes.is_empty() { PROMPT } else { SILENCE };
        stream.set_read_timeout(Some(patience))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            // A reset is how a listener leaves who goes on writing.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(bytes);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The statuses of all answers in what was read.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    text.split("HTTP/1.")
        .skip(1)
        .filter_map(|answer| answer.get(2..5)?.parse().ok())
        .collect()
}

/// Sends bytes and returns all that is answered; `half` closes our side then.
fn send(site: &Site, bytes: &[u8], half: bool) -> Result<Vec<u8>> {
    let mut stream = connect(site)?;
    // The listener may refuse a head before all of it was sent.
    let _ = stream.write_all(bytes);
    if half {
        let _ = stream.shutdown(Shutdown::Write);
    }
    read_all(&mut stream)
}

/// A good request, on a connection of its own.
fn ask(site: &Site, request: &str) -> Result<String> {
    let answer = send(site, request.as_bytes(), false)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const GOOD: &str = "Host: localhost\r\nAuthorization: Bearer hunter2\r\nConnection: close\r\n\r\n";

/// How many events the topic holds.
fn written(site: &Site) -> Result<usize> {
    let answer = ask(
        site,
        &format!("GET /topics/orders?count=100 HTTP/1.1\r\n{GOOD}"),
    )?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer.matches("\"topic\":\"orders\"").count())
}

fn alive(site: &Site) -> Result<()> {
    let answer = ask(site, &format!("GET /healthz HTTP/1.1\r\n{GOOD}"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// Name, statuses (`-` for none, `|` for any of several) and request. `HOST`, `TOKEN` and `JSON`
/// stand for good headers, `PAD(n)` for n bytes and `FLOOD(n)` for n headers; lines end with CRLF,
/// `~` is an empty line, `\0`, `\r`, `\t` and `\x..` are bytes, and a `<` at the end closes our side.
const CASES: &str = r"
two lengths                 400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;Content-Length: 5;~;vGET 
lengths in one header       400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1, 5;~;v
negative length             400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: -1;~;v
signed length               400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: +1;~;v
length that overflows       400|413   POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 99999999999999999999999;~;v
length and chunks           200       GET /healthz HTTP/1.1;HOST;Content-Length: 5;Transfer-Encoding: chunked;~;0;~;POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
chunks and length           200       GET /healthz HTTP/1.1;HOST;Transfer-Encoding: chunked;Content-Length: 5;~;0;~;POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
chunked and more            400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding: chunked, identity;~;0;~
almost chunked              400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding: xchunked;~;0;~
space before the colon      400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding : chunked;~;0;~
chunks in HTTP/1.0          400       POST /topics/orders HTTP/1.0;HOST;TOKEN;JSON;Transfer-Encoding: chunked;~;0;~
chunk of no size            400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding: chunked;~;zz;v;0;~
chunk that overflows        400|413   POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding: chunked;~;FFFFFFFFFFFFFFFFF;v
chunk without its end       400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding: chunked;~;1;vv;0;~
chunks that break off       400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Transfer-Encoding: chunked;~;5;v<
body that breaks off        400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 50;~;v<
head that breaks off        -|400     POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON<
flood of headers            431       GET /healthz HTTP/1.1;HOST;FLOOD(300);~
giant head                  431       GET /healthz HTTP/1.1;HOST;A: PAD(200000);~
giant target                -|414|431 GET /PAD(200000) HTTP/1.1;HOST;~
giant method                -|400|431 PAD(100000) / HTTP/1.1;HOST;~
announced too large         413       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 16777217;~
foreign absolute target     421       POST http://evil.example/topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
target with a user          400|421   GET http://localhost@evil.example/topics/orders HTTP/1.1;HOST;TOKEN;~
target of another scheme    400|404|421 GET file:///etc/passwd HTTP/1.1;HOST;TOKEN;~
target without a slash      400|404   GET topics/orders HTTP/1.1;HOST;TOKEN;~
star                        415       OPTIONS * HTTP/1.1;HOST;TOKEN;~
tunnel                      400|415|421 CONNECT evil.example:443 HTTP/1.1;Host: evil.example:443;TOKEN;~
tunnel to us                400|404|405|415 CONNECT localhost:22 HTTP/1.1;HOST;TOKEN;~
folder above                400|404   GET /topics/../../etc/passwd HTTP/1.1;HOST;TOKEN;~
folder above, escaped       400       POST /topics/..%2F..%2Fetc%2Fpasswd HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
slash in a topic            400       POST /topics/orders%2Fx HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
null in a topic             400       POST /topics/orders%00 HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
twice escaped               400       POST /topics/orders%252F HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
overlong in a topic         400       POST /topics/%C0%AE%C0%AE HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
line break in a topic       400       POST /topics/orders%0D%0AX:y HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
null in the target          400       GET /topics/orders\0 HTTP/1.1;HOST;TOKEN;~
null in a header            400       GET /healthz HTTP/1.1;HOST;A: b\0c;~
carriage return in a header 400       GET /healthz HTTP/1.1;HOST;A: b\rc;~
folded header               400       GET /healthz HTTP/1.1;HOST;A: b;\tc;~
bytes that are no text      400       GET /topics/\xff HTTP/1.1;HOST;TOKEN\xff;~
rebound name                421       POST /topics/orders HTTP/1.1;Host: evil.example;TOKEN;JSON;Content-Length: 1;~;v
rebound name like ours      421       GET /topics/orders HTTP/1.1;Host: localhost.evil.example;TOKEN;~
name as a number            421       GET /metrics HTTP/1.1;Host: 2130706433;~
no name                     400       GET /metrics HTTP/1.1;~
two names                   400       GET /metrics HTTP/1.1;HOST;Host: evil.example;~
cross-site origin           403       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Origin: http://evil.example;Content-Length: 1;~;v
origin null                 403       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Origin: null;Content-Length: 1;~;v
origin of another port      403       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Origin: http://localhost:1;Content-Length: 1;~;v
cross-site fetch            403       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Sec-Fetch-Site: cross-site;Content-Length: 1;~;v
same-site fetch             403       GET /topics/orders HTTP/1.1;HOST;TOKEN;Sec-Fetch-Site: same-site;~
form as text                415       POST /topics/orders HTTP/1.1;HOST;TOKEN;Content-Type: text/plain;Content-Length: 1;~;v
form                        415       POST /topics/orders HTTP/1.1;HOST;TOKEN;Content-Type: application/x-www-form-urlencoded;Content-Length: 1;~;v
form of parts               415       POST /topics/orders HTTP/1.1;HOST;TOKEN;Content-Type: multipart/form-data\x3b boundary=x;Content-Length: 1;~;v
no content type             415       POST /topics/orders HTTP/1.1;HOST;TOKEN;Content-Length: 1;~;v
two content types           400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Type: text/plain;Content-Length: 1;~;v
no token                    401       POST /topics/orders HTTP/1.1;HOST;JSON;Content-Length: 1;~;v
wrong token                 401       POST /topics/orders HTTP/1.1;HOST;JSON;Authorization: Bearer hunter;Content-Length: 1;~;v
token and more              401       POST /topics/orders HTTP/1.1;HOST;JSON;Authorization: Bearer hunter2x;Content-Length: 1;~;v
token as a password         401       POST /topics/orders HTTP/1.1;HOST;JSON;Authorization: Basic aHVudGVyMg==;Content-Length: 1;~;v
token in the query          401       POST /topics/orders?token=hunter2 HTTP/1.1;HOST;JSON;Content-Length: 1;~;v
token as a cookie           401       POST /topics/orders HTTP/1.1;HOST;JSON;Cookie: millstream-session=hunter2;Content-Length: 1;~;v
forged cookie               401       POST /topics/orders HTTP/1.1;HOST;JSON;Cookie: millstream-session=9999999999999.00;Content-Length: 1;~;v
two tokens                  400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Authorization: Bearer x;Content-Length: 1;~;v
giant token                 401|431   POST /topics/orders HTTP/1.1;HOST;JSON;Authorization: Bearer PAD(60000);Content-Length: 1;~;v
HTTP/0.9                    -|400     GET /metrics;~
HTTP/1.0 without a name     400       GET /metrics HTTP/1.0;~
HTTP/1.0                    200       GET /healthz HTTP/1.0;HOST;~
HTTP/2 by knowledge         -|400|505 PRI * HTTP/2.0;~;SM;~
HTTP/9                      -|400|505 GET /healthz HTTP/9.9;HOST;~
TLS to a plain port         -|400     \x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03<
nonsense                    400       hello world;~
no method                   400       GE(T /healthz HTTP/1.1;HOST;~
pipelined                   200 403 200 GET /healthz HTTP/1.1;HOST;~;POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Origin: null;Content-Length: 1;~;vGET /healthz HTTP/1.1;HOST;~
body that is a request      401       POST /topics/orders HTTP/1.1;HOST;JSON;Connection: close;Content-Length: 106;~;POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
told to wait, no token      401       POST /topics/orders HTTP/1.1;HOST;JSON;Expect: 100-continue;Content-Length: 1;~
upgrade to websocket        200       GET /healthz HTTP/1.1;HOST;Connection: Upgrade;Upgrade: websocket;Sec-WebSocket-Key: eA==;Sec-WebSocket-Version: 13;~
upgrade to h2c              200       GET /healthz HTTP/1.1;HOST;Connection: Upgrade, HTTP2-Settings;Upgrade: h2c;HTTP2-Settings: AAMAAABk;~
HEAD of events, no token    401       HEAD /topics/orders HTTP/1.1;HOST;~
TRACE                       415       TRACE /healthz HTTP/1.1;HOST;TOKEN;Cookie: secret=1;~
OPTIONS                     415       OPTIONS /topics/orders HTTP/1.1;HOST;Origin: http://localhost;Access-Control-Request-Method: POST;~
PUT                         405       PUT /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v
another method in a header  405       PUT /topics/orders HTTP/1.1;HOST;TOKEN;JSON;X-HTTP-Method-Override: POST;Content-Length: 1;~;v
path in a header            404       GET /nothing HTTP/1.1;HOST;TOKEN;X-Original-URL: /topics/orders;X-Rewrite-URL: /topics/orders;~
bad lines                   400       POST /topics/orders HTTP/1.1;HOST;TOKEN;Content-Type: application/x-ndjson;Content-Length: 11;~;{'value':1}
deep JSON                   400       POST /topics/orders HTTP/1.1;HOST;TOKEN;Content-Type: application/x-ndjson;Content-Length: 60000;~;NEST(60000)
two keys                    400       POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON;Idempotency-Key: a;Idempotency-Key: b;Content-Length: 1;~;v
";

/// A request of the table as bytes, and whether our side closes after it.
fn bytes_of(text: &str) -> (Vec<u8>, bool) {
    let (text, half) = match text.strip_suffix('<') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut lines = Vec::new();
    for line in text.split(';') {
        lines.push(match line {
            "~" => String::new(),
            "HOST" => "Host: localhost".to_owned(),
            "TOKEN" => format!("Authorization: Bearer {TOKEN}"),
            "JSON" => "Content-Type: application/json".to_owned(),
            line => expanded(line),
        });
    }
    let mut text = lines.join("\r\n");
    // A body ends as the table says; a head, with an empty line.
    if lines.last().is_some_and(String::is_empty) {
        text.push_str("\r\n");
    }
    (unescaped(&text), half)
}

fn expanded(line: &str) -> String {
    let argument = |name: &str| -> Option<(usize, usize, usize)> {
        let start = line.find(name)?;
        let inside = start + name.len() + 1;
        let end = inside + line.get(inside..)?.find(')')?;
        Some((start, end + 1, line.get(inside..end)?.parse().ok()?))
    };
    let (place, text) = if let Some((start, end, number)) = argument("PAD") {
        ((start, end), "x".repeat(number))
    } else if let Some((start, end, number)) = argument("NEST") {
        ((start, end), "[".repeat(number))
    } else if let Some((start, end, number)) = argument("FLOOD") {
        let headers: Vec<String> = (0..number).map(|n| format!("h{n}: v")).collect();
        ((start, end), headers.join("\r\n"))
    } else {
        return line.to_owned();
    };
    format!("{}{text}{}", &line[..place.0], &line[place.1..])
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'0') => 0,
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            _ => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
        });
    }
    bytes
}

#[test]
fn hostile_requests_write_nothing_and_keep_nobody_out() -> Result<()> {
    let site = site()?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let mut wrong = Vec::new();
    let cases: Vec<&str> = CASES.lines().filter(|line| !line.is_empty()).collect();
    ensure!(cases.len() >= 60, "only {} cases", cases.len());
    for case in cases {
        let (name, rest) = case.split_at(28);
        let name = name.trim();
        let request = rest.trim_start_matches(|c: char| "0123456789-| ".contains(c));
        let wanted = rest[..rest.len() - request.len()].trim();
        let (bytes, half) = bytes_of(request);
        let answer = send(&site, &bytes, half).with_context(|| name.to_owned())?;
        let got = statuses(&answer);
        let fits = match wanted.split_once(' ') {
            Some(_) => {
                let all: Vec<u16> = wanted.split(' ').filter_map(|s| s.parse().ok()).collect();
                got == all
            }
            None => wanted.split('|').any(|one| match one.parse::<u16>() {
                Ok(status) => got == [status],
                Err(_) => got.is_empty(),
            }),
        };
        // A reset may overtake the refusal of what is too large to be read.
        let overtaken = got.is_empty() && wanted.contains("431");
        if !(fits || overtaken) {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
            wrong.push(format!("{name}: {got:?} and not {wanted}: {shown}"));
        }
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        for bad in [
            "access-control",
            "100 continue",
            "101 switching",
            "secret=1",
            TOKEN,
        ] {
            if text.contains(bad) {
                wrong.push(format!("{name}: answered with {bad}"));
            }
        }
        alive(&site).with_context(|| format!("after {name}"))?;
        let events = written(&site).with_context(|| format!("after {name}"))?;
        if events != 0 {
            bail!(
                "{name} wrote {events} events; so far:\n{}",
                wrong.join("\n")
            );
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    good_event(&site)?;
    ensure!(written(&site)? == 1);
    ensure!(!running.logs().contains(TOKEN), "the token is in the log");
    running.terminate()?;
    running.succeed(PATIENCE)
}

fn good_event(site: &Site) -> Result<()> {
    let head = "POST /topics/orders HTTP/1.1\r\nContent-Type: application/json\r\n";
    let answer = ask(site, &format!("{head}Content-Length: 1\r\n{GOOD}v"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

/// Who says that nothing more comes is told what became of what came; a chunked body ends its
/// connection; a body is asked for where it is wanted.
#[test]
fn good_requests_of_unusual_form_are_served() -> Result<()> {
    let site = site()?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let head = "POST /topics/orders HTTP/1.1;HOST;TOKEN;JSON";
    for (number, (request, wanted)) in [
        (format!("{head};Content-Length: 1;~;v<"), vec![200]),
        (
            format!("{head};Transfer-Encoding: chunked;~;1;v;0;~"),
            vec![200],
        ),
        (
            format!("{head};Expect: 100-continue;Content-Length: 1;~;v"),
            vec![100, 200],
        ),
        (
            "POST http://localhost/topics/orders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v"
                .into(),
            vec![200],
        ),
        (
            "POST /topics/%6Frders HTTP/1.1;HOST;TOKEN;JSON;Content-Length: 1;~;v".into(),
            vec![200],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (bytes, half) = bytes_of(&request);
        let answer = send(&site, &bytes, half)?;
        let got = statuses(&answer);
        // The body is there before it is asked for, so asking may be left out.
        ensure!(
            got == wanted || got == [200],
            "{request}: {got:?}: {}",
            String::from_utf8_lossy(&answer)
        );
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let closes = text.contains("connection: close");
        ensure!(closes || !request.contains("chunked"), "{text}");
        ensure!(written(&site)? == number + 1, "{request}");
    }
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// The cookie that a browser keeps instead of the token.
#[test]
fn the_token_becomes_a_cookie_for_our_own_pages() -> Result<()> {
    let site = site()?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let head =
        "POST /-/session HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 0\r\n";
    let refused = ask(
        &site,
        &format!("{head}Host: localhost\r\nConnection: close\r\n\r\n"),
    )?;
    ensure!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let answer = ask(&site, &format!("{head}{GOOD}"))?;
    ensure!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let set = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "));
    let set = set.with_context(|| format!("no cookie: {answer}"))?;
    ensure!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict"),
        "{set}"
    );
    ensure!(!set.contains(TOKEN), "{set}");
    let cookie = set.split(';').next().unwrap_or_default();
    let with = |more: &str, status: u16| -> Result<()> {
        let head = "POST /topics/orders HTTP/1.1\r\nContent-Type: application/json\r\n";
        let rest = "Host: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\nv";
        let answer = ask(&site, &format!("{head}Cookie: {cookie}\r\n{more}{rest}"))?;
        ensure!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{more}: {answer}"
        );
        Ok(())
    };
    with("", 403)?;
    with("Origin: http://evil.example\r\n", 403)?;
    with("Sec-Fetch-Site: cross-site\r\n", 403)?;
    ensure!(written(&site)? == 0);
    with("Origin: http://localhost\r\n", 200)?;
    ensure!(written(&site)? == 1);
    let rest = format!("Host: localhost\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
    let read = ask(&site, &format!("GET /topics/orders HTTP/1.1\r\n{rest}"))?;
    ensure!(read.starts_with("HTTP/1.1 200"), "{read}");
    running.terminate()?;
    running.succeed(PATIENCE)
}

/// So many connections that each place is taken.
const CROWD: usize = 300;

fn crowd(site: &Site, bytes: &[u8]) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut stream = connect(site)?;
        // Some are turned away by those that come later.
        let _ = stream.write_all(bytes);
        crowd.push(stream);
    }
    Ok(crowd)
}

fn served_at_once(site: &Site, running: &mut Running) -> Result<()> {
    for _ in 0..3 {
        let within = Deadline::after(PROMPT);
        alive(site)?;
        good_event(site)?;
        ensure!(!within.passed(), "good requests had to wait");
    }
    ensure!(running.running(), "{}", running.logs());
    Ok(())
}

/// Slowloris: half a head, half a body, an answer that is never read, or nothing at all, on more
/// connections than there are places. Who has something to say is served at once all the same.
#[test]
fn who_dawdles_keeps_nobody_out() -> Result<()> {
    let site = site()?;
    let mut running = site.start(&[])?;
    running.until_ready(PATIENCE)?;
    let half_head = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ";
    let half_body = "POST /topics/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 100\r\n\r\nv";
    let unread = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5);
    for bytes in ["", half_head, half_body, &unread] {
        let mut crowd = crowd(&site, bytes.as_bytes())?;
        served_at_once(&site, &mut running)?;
        // Byte by byte they go on, and it changes nothing.
        for stream in &mut crowd {
            let _ = stream.write_all(b"x");
        }
        served_at_once(&site, &mut running)?;
    }
    // Those who know the token are not strangers: their bodies are waited for, some of them.
    let known = format!(
        "POST /topics/orders HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n{}v",
        GOOD
    );
    let patient: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(&site)?;
            stream.write_all(known.as_bytes())?;
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    served_at_once(&site, &mut running)?;
    drop(patient);
    running.terminate()?;
    running.succeed(PATIENCE)
}
