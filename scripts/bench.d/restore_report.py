"""What scripts/bench --restore prints and draws of what its guest measured."""

STEADY = 1.5  # times the p99 of before, at most
OVER = 10.0  # seconds of reads that have to be that quick
ORDERS = {"off": "(a) as it is asked for", "address": "(b) hydrated by address", "expected": "(c) hydrated in the order of use"}
COLOURS = {"off": "#888888", "address": "#c1272d", "expected": "#0072b2"}
BYTES_BUDGET = 1 / 3  # bytes moved until steady, (c) against (b)


def percentile(values, share):
    values = sorted(values)
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def quick_from(cell, limit):
    """Seconds after which the p99 of the next ten seconds is so many milliseconds or less; None where that did not come."""
    reads = cell["reads"]
    last = reads[-1][0] - OVER
    starts = [0.0] + [at for at, took in reads if took > limit]
    for start in (at + 0.001 for at in starts):
        if start > last:
            return None
        if percentile([took for at, took in reads if start <= at <= start + OVER], 0.99) <= limit:
            return start
    return None


def moved(cell, seconds):
    """Bytes that had come to the fast tier at the first look after that many seconds: hydrated, and because they were read. No
    less than had come by then, at most a second's too many."""
    curve = cell["curve"]
    return next((look["moved_bytes"] for look in curve if look["s"] >= seconds), curve[-1]["moved_bytes"])


def report(found, table):
    """Prints the tables; gives the checks."""
    checks = []
    rows = [["a hot set is read at once", "device, s", "reads that waited", "p99 before, ms", "99 of 100 do not wait after, s", "MiB until then",
             "p99 steady after, s", "MiB until then", "MiB in all"]]
    cells = {(cell["latency_ms"], cell["order"]): cell for cell in found if cell["kind"] == "restore"}
    bytes_until = {}
    for (latency, order), cell in cells.items():
        start = quick_from(cell, STEADY * cell["steady_p99_ms"])
        served = quick_from(cell, latency / 2)
        bytes_until[latency, order] = None if start is None else moved(cell, start)
        waited = sum(took > latency / 2 for _, took in cell["reads"])
        rows.append([f"{latency} ms a request, {ORDERS[order]}", f"{cell['device_s']:.2f}", f"{waited} of {len(cell['reads'])}",
                     f"{cell['steady_p99_ms']:.3f}", "not" if served is None else f"{served:.1f}",
                     "-" if served is None else f"{moved(cell, served) / (1 << 20):.0f}", "not" if start is None else f"{start:.1f}",
                     "-" if start is None else f"{bytes_until[latency, order] / (1 << 20):.0f}", f"{cell['curve'][-1]['moved_bytes'] / (1 << 20):.0f}"])
    print(table(rows))
    rows = [["database", "device, s", "first query answered, s", "reads that waited", "MiB hydrated by then"]]
    queries = {}
    for cell in found:
        if cell["kind"] == "database":
            # The first of two without hydration is the one that shows what a start reads.
            queries[cell["latency_ms"], cell["order"]] = cell
    for (latency, order), cell in queries.items():
        rows.append([f"{latency} ms a request, {ORDERS[order]}", f"{cell['device_s']:.2f}", f"{cell['first_query_s']:.2f}", str(cell["misses"]),
                     f"{cell['hydrated_bytes'] / (1 << 20):.0f}"])
    print()
    print(table(rows))
    for latency in sorted({latency for latency, _ in cells}):
        by_address, expected = (bytes_until[latency, order] for order in ("address", "expected"))
        value = expected / by_address if expected is not None and by_address else float("inf") if expected is None else 0.0
        checks.append({"what": f"{latency} ms: bytes moved until steady, in the order of use / by address", "value": value, "budget": BYTES_BUDGET})
        checks.append({"what": f"{latency} ms: seconds until the device is there", "value": cells[latency, "expected"]["device_s"], "budget": 2.0})
    return checks


def draw(found, path):
    """Two pictures a latency: the share of reads that wait, and what has come to the fast tier, over the seconds."""
    cells = [cell for cell in found if cell["kind"] == "restore"]
    latencies = sorted({cell["latency_ms"] for cell in cells})
    wide, high, left, top, gap = 420, 190, 60, 60, 90
    seconds = 20.0
    width, height = left + 2 * (wide + gap), top + len(latencies) * (high + gap)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="24" font-size="16">A volume is restored and read at once: what waits, and what it takes</text>']
    for number, (order, words) in enumerate(ORDERS.items()):
        x = left + number * 240
        out.append(f'<line x1="{x}" y1="42" x2="{x + 24}" y2="42" stroke="{COLOURS[order]}" stroke-width="2"/><text x="{x + 30}" y="46">{words}</text>')
    for row, latency in enumerate(latencies):
        y0 = top + row * (high + gap) + 20
        most = max(cell["curve"][-1]["moved_bytes"] for cell in cells if cell["latency_ms"] == latency) / (1 << 20)
        panels = (("reads of the last second that waited, %", 100.0), ("MiB that came to the fast tier", most))
        for column, (title, limit) in enumerate(panels):
            x0 = left + column * (wide + gap)
            out.append(f'<text x="{x0}" y="{y0 - 6}">{title}; {latency} ms a request</text>')
            out.append(f'<rect x="{x0}" y="{y0}" width="{wide}" height="{high}" fill="none" stroke="#bbbbbb"/>')
            for tick in range(0, int(seconds) + 1, 5):
                x = x0 + wide * tick / seconds
                out.append(f'<text x="{x}" y="{y0 + high + 16}" text-anchor="middle">{tick} s</text>')
            for tick in (0, 0.5, 1):
                out.append(f'<text x="{x0 - 6}" y="{y0 + high * (1 - tick) + 4}" text-anchor="end">{limit * tick:.0f}</text>')
            for cell in (cell for cell in cells if cell["latency_ms"] == latency):
                if column == 0:
                    points = []
                    for step in range(int(seconds * 4) + 1):
                        at = step / 4
                        near = [took for when, took in cell["reads"] if at - 1 < when <= at]
                        if near:
                            points.append((at, 100.0 * sum(took > latency / 2 for took in near) / len(near)))
                else:
                    points = [(look["s"], look["moved_bytes"] / (1 << 20)) for look in cell["curve"] if look["s"] <= seconds]
                line = " ".join(f"{x0 + wide * at / seconds:.1f},{y0 + high * (1 - value / limit):.1f}" for at, value in points)
                out.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[cell["order"]]}" stroke-width="2"/>')
    out.append("</svg>")
    path.write_text("\n".join(out) + "\n", encoding="utf-8")
