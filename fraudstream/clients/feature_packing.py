"""The Lua functions that are made for an entity of a feature set to pack and read its rows and headers."""

from collections.abc import Iterable, Iterator

from fraudstream.clients.feature_layout import Plan, header_pieces


def packing(plan: Plan) -> Iterator[list[str]]:
    """Yield the functions, each as lines of Lua."""
    yield _new(plan)
    yield _pack_row(plan)
    for name, fields in (("small", plan.small), ("large", plan.large)):
        yield _read_header(plan, name, fields)
        yield _pack_header(plan, name, fields)


def function(plan: Plan, signature: str, body: Iterable[str]) -> list[str]:
    """Return a function of the plan's table."""
    return [f"function {plan.entity.upper()}.{signature}", *indented(body), "end"]


def indented(lines: Iterable[str]) -> list[str]:
    """Return lines one level further in."""
    return [f"  {line}" for line in lines]


def _new(plan: Plan) -> list[str]:
    """Return what makes the table of an entity, at once in its size: a table that grows is slower."""
    header = ", ".join("0" for _ in plan.small)
    names = "tail = false, name = '', key = '', rows = '', n = 0, stored = 0, labels = ''"
    fresh = "fresh = '', fresh_n = 0, fresh_t = 0"
    state = f"plan = {plan.entity.upper()}, start = 0, large = false, dirty = false, whole = false"
    return function(plan, "new()", [f"return {{ {header}, {state}, {names}, {fresh} }}"])


def _pack_row(plan: Plan) -> list[str]:
    names = ", ".join(name for name, _ in plan.fields)
    packed = f"pack('<{''.join(kind for _, kind in plan.fields)}', {names})"
    at = plan.at("ratio")
    body = [f"return {packed}"]
    if at is not None:
        body = [f"local row = {packed}", f"return row, read('<f', row, {at + 1})"]
    elif plan.flags["clean"]:
        body = [f"return {packed}, (read('<f', pack('<f', ratio)))"]
    return function(plan, "pack_row(t, digest, offset, amount, ratio, unexplained, other)", body)


def _read_header(plan: Plan, name: str, fields: list[tuple[str, str]]) -> list[str]:
    body = []
    for places, kinds in header_pieces(fields):
        names = ", ".join(f"e[{i}]" for i in places)
        after = "" if kinds.endswith("B") and places[-1] == len(fields) else ", at"
        body.append(f"{names}{after} = read('<{kinds}', s, at)")
    return function(plan, f"read_{name}(e, s, at)", body)


def _pack_header(plan: Plan, name: str, fields: list[tuple[str, str]]) -> list[str]:
    packed = []
    for piece, (places, kinds) in enumerate(header_pieces(fields)):
        names = ", ".join(f"e[{i}]" for i in places)
        last = f", {int(name == 'large')}" if places[-1] == len(fields) else ""
        first = "form, rows, fresh, room, labels" if piece == 0 else f"'<{kinds}'"
        packed.append(f"pack({first}, {names}{last})")
    return function(
        plan, f"pack_{name}(form, rows, fresh, room, labels, e)", [f"return {' .. '.join(packed)}"]
    )
