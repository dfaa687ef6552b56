"""Suites written as YAML: read, with each mistake named by file and path."""

from __future__ import annotations

from pathlib import Path

from ghostify.errors import SuiteError
from ghostify.published import published_tables
from ghostify.runs.methods import read_method
from ghostify.runs.networks import OF_NETWORKS, check_name, read_networks
from ghostify.runs.reading import Node
from ghostify.runs.suite import (
    LAYOUTS,
    ORIGINAL,
    Suite,
    SuiteData,
    SuiteLatency,
    SuiteMethod,
    SuiteNetwork,
    SuiteReport,
)
from ghostify.runtimes import RUNTIMES
from ghostify.yaml_file import read_yaml

__all__ = ["load_suite", "parse_suite"]

_KEYS = (
    "title", "description", "networks", "data", "teacher", "latency", "methods", "report",
    *OF_NETWORKS,
)  # fmt: skip


def load_suite(path: str | Path, *, files: bool = True) -> Suite:
    """Read a suite; the paths in it are relative to the folder of its file.

    Args:
        files: whether what it names (data, weights, plans, recipes) must be there.

    Raises:
        SuiteError: no such file, or a mistake in it, with the path inside.
    """
    path = Path(path)
    if path.is_dir():
        raise SuiteError(f"{path} is a directory; give the YAML file of a suite")
    value = read_yaml(path, kind="suite", error=SuiteError)
    text = path.read_text(encoding="utf-8")
    return parse_suite(value, file=path, folder=path.absolute().parent, files=files, text=text)


def parse_suite(
    value: object, *, file: Path, folder: Path, files: bool = True, text: str = ""
) -> Suite:
    """Read a suite from plain values.

    Args:
        file: what it is called in messages.
        folder: what paths inside are relative to.
        files: as for :func:`load_suite`.
        text: of the file, as it stands there.

    Raises:
        SuiteError: a mistake in it.
    """
    if not isinstance(value, dict):
        raise SuiteError(f"{file}: a suite is a mapping with title, networks and methods")
    top = Node(value, str(file))
    top.keys(_KEYS, required=("title", "networks", "methods"))
    data = _data(top["data"], folder, files)
    teacher = None if top["teacher"].value is None else top["teacher"].choice((ORIGINAL,))
    networks = read_networks(top, data=data, folder=folder, files=files)
    names = tuple(network.name for network in networks)
    methods = []
    for name, node in top["methods"].items():
        check_name(name, node)
        method = read_method(
            name, node, networks=names, teacher=teacher, trained=data is not None,
            folder=folder, files=files,
        )  # fmt: skip
        _check_budgets(method, node, networks)
        methods.append(method)
    return Suite(
        path=file,
        title=top["title"].text(),
        description="" if top["description"].value is None else top["description"].text(),
        networks=networks,
        methods=tuple(methods),
        data=data,
        teacher=teacher,
        latency=_latency(top["latency"]),
        report=_report(top["report"], tuple(method.name for method in methods)),
        text=text,
    )


def _data(node: Node, folder: Path, files: bool) -> SuiteData | None:
    if node.value is None:
        return None
    node.keys(("path", "split", "validation", "calibration", "test"), required=("path",))
    test = node["test"]
    return SuiteData(
        path=node["path"].path(folder, there=files),
        split=None if node["split"].value is None else node["split"].text(),
        validation=node["validation"].whole(0),
        calibration=node["calibration"].whole(3000, least=1),
        test=None if test.value is None else test.path(folder, there=files),
    )


def _check_budgets(method: SuiteMethod, node: Node, networks: tuple[SuiteNetwork, ...]) -> None:
    for network in networks:
        if method.takes_budget and network.name in method.networks and not network.budgets:
            node.fail(
                f"a method of kind {method.kind} needs a budget for {network.name}; give one, "
                "such as budgets: [macs=0.5x]"
            )


def _latency(node: Node) -> tuple[SuiteLatency, ...]:
    found = []
    for one in () if node.value is None else node.once("entry"):
        one.keys(("runtime", "threads", "batch", "rounds"), required=("runtime",))
        found.append(
            SuiteLatency(
                one["runtime"].choice(tuple(RUNTIMES)),
                threads=one["threads"].whole(1, least=1),
                batch=one["batch"].whole(1, least=1),
                rounds=one["rounds"].whole(25, least=5),
            )
        )
    return tuple(found)


def _report(node: Node, methods: tuple[str, ...]) -> SuiteReport:
    if node.value is None:
        return SuiteReport()
    node.keys(("layout", "reference", "published", "notes"))
    reference, published, layout = node["reference"], node["published"], node["layout"]
    several = isinstance(layout.value, list)
    shapes = [one.choice(LAYOUTS) for one in layout.once("layout")] if several else []
    tables = () if published.value is None else published.once("table")
    return SuiteReport(
        layout=",".join(shapes) or layout.choice(LAYOUTS, "plain"),
        reference=None if reference.value is None else reference.choice(methods),
        published=tuple(one.choice(published_tables()) for one in tables),
        notes=node["notes"].texts(),
    )
