"""The page that plans, in a real browser: the answers of the command line, and nothing sent."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gguf_bytes import Array, gguf_bytes
from header.test_hf_config import GEMMA3, LLAMA
from program import run
from split_model import split_model

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models" / "passkey-Q8_0.gguf"
ENGINES = "hf,vllm,llama.cpp,ollama,koboldcpp,lmstudio"

#: Chromium starts with nothing of its own to ask the network for.
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

#: Python has to start, perhaps on a busy machine.
PATIENCE = 240_000


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=program, args=OPTIONS)


@pytest.fixture(scope="module")
def origin(site: Path) -> Iterator[str]:
    if not (site / "planner" / "pyodide").is_dir():
        pytest.skip("the site has no Pyodide: npm ci --prefix docs/planner")
    with serving(site) as (address, _):
        yield address


class Planner:
    """The page as a person uses it."""

    def __init__(self, page: Page, requests: list[str]) -> None:
        self.page = page
        self.requests = requests

    def choose(self, *files: Path | Mapping[str, Any]) -> None:
        self.page.get_by_label("Model", exact=True).set_input_files(list(files))
        self.wait()

    def wait(self) -> None:
        """Until the page has answered what it was asked last."""
        self.page.wait_for_selector("#planner-answer:not([aria-busy])", state="attached")

    def ask(self, target: str, memory: str = "") -> None:
        self.page.get_by_label("Another context length, in tokens").fill(target)
        self.page.get_by_label("another", exact=True).check()
        self.page.get_by_label("Memory of the card, if it counts").fill(memory)
        self.page.get_by_role("button", name="Plan").click()
        self.wait()

    @property
    def error(self) -> str:
        return self.page.locator("#planner-error").text_content() or ""

    @property
    def status(self) -> str:
        return self.page.get_by_role("status").text_content() or ""

    @property
    def result(self) -> Any:
        shown = self.page.locator("#planner-answer > details > pre").text_content()
        return rounded(json.loads(shown or ""))


@pytest.fixture(scope="module")
def opened(browser: Browser, origin: str) -> Iterator[Planner]:
    """The page, loaded once: Python takes its time to start."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    # Dialogs are caught from now on: a key may open one sooner than a first waiting would catch it.
    page.on("filechooser", lambda _: None)
    page.goto(f"{origin}/plan/")
    yield Planner(page, requests)
    page.close()


@pytest.fixture
def planner(opened: Planner) -> Planner:
    """It with the shipped model chosen and planned for 1k."""
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    opened.choose(SHIPPED)
    opened.ask("1k")
    assert opened.error == ""
    return opened


def rounded(value: Any) -> Any:
    """A result whose numbers have 13 digits: two C libraries differ in the last of a power."""
    if isinstance(value, float):
        return float(f"{value:.13g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def of_the_command_line(path: Path, target: str, *options: str) -> Any:
    done = run(
        "plan",
        path.name,
        "--target",
        target,
        "--emit",
        ENGINES,
        *options,
        "--json",
        cwd=path.parent,
    )
    assert done.returncode == 0, done.stderr
    return rounded(json.loads(done.stdout))


@pytest.mark.parametrize(("target", "memory"), [("1k", "1g"), ("32k", ""), ("128", "")])
def test_the_shipped_model_gets_the_plans_of_the_command_line(
    planner: Planner, target: str, memory: str
) -> None:
    planner.ask(target, memory)
    vram = ("--vram", memory) if memory else ()
    assert planner.result == of_the_command_line(SHIPPED, target, *vram)


@pytest.mark.parametrize(
    "name", ["command-r", "deepseek-coder", "gpt-neox", "llama-bpe", "llama-spm", "phi-3", "qwen2"]
)
def test_a_real_header_gets_the_plans_of_the_command_line(
    planner: Planner, real_headers: Path, name: str
) -> None:
    path = real_headers / f"ggml-vocab-{name}.gguf"
    planner.choose(path)
    planner.ask("256k", "24g")
    assert planner.error == ""
    assert planner.result == of_the_command_line(path, "256k", "--vram", "24g")
    read = re.search(r"Read ([\d.]+) MB of", planner.status)
    assert read is not None
    assert float(read[1]) * 1e6 <= 16 * 2**20


@pytest.mark.parametrize("entries", [LLAMA, GEMMA3], ids=["llama", "gemma3"])
def test_a_configuration_gets_the_plans_of_the_command_line(
    planner: Planner, tmp_path: Path, entries: dict[str, Any]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(entries))
    planner.choose(path)
    planner.ask("256k", "12g")
    assert planner.result == of_the_command_line(path, "256k")
    assert planner.page.get_by_role("region", name="Memory at the target").count() == 0


def test_the_parts_of_a_split_model_are_planned_together(planner: Planner, tmp_path: Path) -> None:
    parts = split_model(SHIPPED, tmp_path / "model", parts=3)
    planner.choose(*reversed(parts))
    planner.ask("1k", "1g")
    assert planner.result == of_the_command_line(parts[0], "1k", "--vram", "1g")


def test_little_is_read_of_a_file_above_4_gib(planner: Planner, tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    shutil.copy(SHIPPED, path)
    os.truncate(path, 5 * 2**30)
    planner.choose(path)
    assert planner.result == of_the_command_line(path, "1k")
    assert planner.status.startswith("Planned. Read 0.3 MB of 5,368.7 MB;")


def cut(folder: Path) -> Path:
    path = folder / "cut.gguf"
    path.write_bytes(SHIPPED.read_bytes()[:5000])
    return path


def unfinished(folder: Path) -> Path:
    path = folder / "unfinished.gguf"
    path.write_bytes(SHIPPED.read_bytes()[:900_000])
    return path


def absurd(folder: Path) -> Path:
    path = folder / "absurd.gguf"
    path.write_bytes(gguf_bytes(keys={"general.architecture": "llama"}, key_count=2**60))
    return path


def text(folder: Path) -> Path:
    path = folder / "text.gguf"
    path.write_text("<!doctype html><title>Not found</title>")
    return path


def empty(folder: Path) -> Path:
    path = folder / "empty.gguf"
    path.touch()
    return path


def alone(folder: Path) -> Path:
    first, second = split_model(SHIPPED, folder / "model", parts=2)
    second.unlink()
    return first


def no_json(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text("{")
    return path


def no_model(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text('{"model_type": "llama"}')
    return path


@pytest.mark.parametrize("broken", [cut, unfinished, absurd, text, empty, alone, no_json, no_model])
def test_what_is_no_model_is_refused_as_on_the_command_line(
    planner: Planner, tmp_path: Path, broken: Callable[[Path], Path]
) -> None:
    path = broken(tmp_path)
    planner.choose(path)
    done = run("plan", path.name, "--target", "1k", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: {planner.error}\n"
    assert planner.page.locator("#planner-answer").is_hidden()
    assert planner.status == "No plan"


@pytest.mark.parametrize("target", ["4g", "2m"])
def test_a_target_that_is_refused_says_why(planner: Planner, target: str) -> None:
    planner.ask(target)
    assert planner.page.get_by_role("alert").is_visible()
    assert len(planner.error) > 20


def test_a_header_of_more_than_16_mib_is_refused_with_the_command_that_reads_it(
    planner: Planner, tmp_path: Path
) -> None:
    path = tmp_path / "long header.gguf"
    tokens = Array(8, ["x" * 1000] * 17_000)
    path.write_bytes(gguf_bytes(keys={"general.architecture": "llama", "tokens": tokens}))
    planner.choose(path)
    assert "the first 16.00 MiB" in planner.error
    assert "ggufext plan --target 1k 'long header.gguf'" in planner.error
    planner.choose(SHIPPED)
    assert planner.error == ""


@pytest.mark.parametrize(
    ("target", "memory", "field"),
    [("12x", "", "Another context length, in tokens"), ("1k", "-1", "Memory of the card")],
)
def test_a_size_that_is_none_is_said_of_its_field(
    planner: Planner, target: str, memory: str, field: str
) -> None:
    planner.ask(target, memory)
    assert "is not a size" in planner.error
    wrong = planner.page.locator("[aria-invalid]")
    assert wrong.count() == 1
    assert wrong.get_attribute("aria-describedby") == "planner-error"
    assert planner.page.get_by_label(field).get_attribute("aria-invalid") == "true"
    planner.ask("1k")
    assert wrong.count() == 0


def test_everything_is_reached_by_keyboard(planner: Planner) -> None:
    page = planner.page
    page.locator("#planner-files").focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(SHIPPED)
    planner.wait()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")  # from another length to 128k
    planner.wait()
    page.wait_for_selector("text=target 131,072 tokens")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("2k")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=target 2,048 tokens")
    for _ in range(3):  # over memory and button to the first table
        page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.get_attribute("aria-label") == "Methods side by side"
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    # The second method, folded, opens.
    page.locator("summary").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("details").nth(1).get_attribute("open") is not None


def test_screen_readers_hear_what_everything_is(planner: Planner) -> None:
    page = planner.page
    assert page.get_by_role("group", name="Context length wanted").count() == 1
    for table in page.locator("#planner-answer table").all():
        assert table.locator("caption").text_content()
        assert set(table.locator("th").evaluate_all("all => all.map(e => e.scope)")) == {
            "col",
            "row",
        }
    for scrolled in page.locator(".planner-scroll").all():
        assert scrolled.get_attribute("tabindex") == "0"
        assert scrolled.get_attribute("role") == "region"
        assert scrolled.get_attribute("aria-label")
    for button in page.locator("#planner-answer button").all():
        assert (button.get_attribute("aria-label") or "").startswith("Copy: ")
    assert page.get_by_role("status").count() == 1
    assert page.locator("#planner-error").get_attribute("role") == "alert"


def test_a_command_is_copied(planner: Planner) -> None:
    page = planner.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: yarn on the command line", include_hidden=True).evaluate(
        "button => button.click()"
    )
    page.wait_for_selector("text=Copied: yarn on the command line")
    assert page.evaluate("navigator.clipboard.readText()") == (
        "ggufext rewrite --target 1k --method yarn passkey-Q8_0.gguf"
    )


def test_names_become_text(planner: Planner) -> None:
    name = "<img src=x onerror=document.title='owned'>.gguf"
    planner.choose({"name": name, "mimeType": "", "buffer": SHIPPED.read_bytes()})
    assert planner.page.get_by_role("heading", name="<img").count() == 1
    assert planner.page.locator("#planner-answer img").count() == 0
    assert planner.result["plans"][0]["path"] == name


def test_a_file_can_be_dropped(planner: Planner) -> None:
    planner.page.evaluate(
        """content => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([content], "dropped.json"));
          document.body.dispatchEvent(
            new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
        }""",
        json.dumps(LLAMA),
    )
    planner.wait()
    assert planner.result["plans"][0]["path"] == "dropped.json"


#: Contrast of a colour of an element with what lies behind it, as WCAG 2.2 computes it.
CONTRAST = """(element, property) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  const behind = [];
  for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
  const light = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
      const c = value / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const [a, b] = [light(behind), light([...behind, getComputedStyle(element)[property]])];
  return Math.max(a, b) / Math.min(a, b);
}"""


@pytest.mark.parametrize(
    ("colours", "theme"), [("Dark colours", "slate"), ("Light colours", "default")]
)
def test_a_narrow_screen_shows_everything_with_contrast(
    planner: Planner, colours: str, theme: str
) -> None:
    page = planner.page
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator(f"label[title='{colours}']").click()
    page.wait_for_selector(f"body[data-md-color-scheme={theme}]")
    texts = ["#planner label", "#planner-status", "th", "td", "li", "pre", "summary", "button"]
    for each in texts:
        selector = each if each.startswith("#") else f"#planner-answer {each}"
        assert page.locator(selector).first.evaluate(CONTRAST, "color") >= 4.5, selector
    for edge in ["#planner-drop", "#planner-memory", "#planner-answer button"]:
        assert page.locator(edge).first.evaluate(CONTRAST, "borderTopColor") >= 3, edge
    planner.choose({"name": "no.gguf", "mimeType": "", "buffer": b"no"})
    assert page.locator("#planner-error").evaluate(CONTRAST, "color") >= 4.5
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_nothing_is_asked_for_elsewhere(planner: Planner, origin: str) -> None:
    # Those of the worker are among them.
    assert f"{origin}/planner/pyodide/pyodide.asm.wasm" in planner.requests
    own = (f"{origin}/", f"blob:{origin}/", "data:")
    assert [url for url in planner.requests if not url.startswith(own)] == []


def test_the_browser_itself_keeps_page_and_workers_from_asking_elsewhere(
    planner: Planner, tmp_path: Path
) -> None:
    asking = """address => new Promise((resolve) => {
      const source = `fetch("${address}/worker").then(
        () => postMessage("sent"), () => postMessage("refused"))`;
      const worker = new Worker(URL.createObjectURL(new Blob([source])));
      worker.onmessage = ({ data }) => resolve(data);
    })"""
    with serving(tmp_path) as (elsewhere, asked):
        assert planner.page.evaluate(asking, elsewhere) == "refused"
        assert (
            planner.page.evaluate(
                "address => fetch(`${address}/page`).then(() => 'sent', () => 'refused')", elsewhere
            )
            == "refused"
        )
    assert asked == []


def test_without_python_the_page_says_what_is_wrong(browser: Browser, site: Path) -> None:
    with serving(site) as (address, _):
        page = browser.new_page()
        page.route("**/pyodide.mjs", lambda route: route.fulfill(status=404))
        page.goto(f"{address}/plan/")
        page.wait_for_selector("#planner-error:not([hidden])", timeout=PATIENCE)
        said = page.locator("#planner-error").text_content() or ""
        assert said.startswith("This page does not work here: ")
        page.close()
