"""What a person does on a page before its picture is taken."""

from collections.abc import Callable

import pyotp
from playwright.sync_api import Page

from tests.browser.room import READY
from tests.factories import PASSWORD


def ask(page: Page) -> None:
    page.get_by_role("button", name="Withdraw the request").scroll_into_view_if_needed()


def why(page: Page) -> None:
    page.wait_for_selector(READY)
    page.keyboard.press(".")
    page.keyboard.press("y")
    page.wait_for_timeout(500)


def claim(page: Page) -> None:
    if page.get_by_role("button", name="Claim to read").count():
        page.get_by_role("button", name="Claim to read").click()
        page.wait_for_selector("#open-sign, #open-blind")
    page.wait_for_selector(READY)


def claimed(act: Callable[[Page], None]) -> Callable[[Page], None]:
    def done(page: Page) -> None:
        claim(page)
        act(page)

    return done


def read(page: Page) -> None:
    claim(page)
    page.keyboard.press(".")
    page.keyboard.press("7")
    page.locator("#saved", has_text="saved").wait_for()
    page.keyboard.press(".")
    page.wait_for_timeout(600)


def invite(page: Page) -> None:
    page.get_by_role("button", name="Invite somebody…").click()
    page.get_by_label("Name, as it stands on reports").first.fill("Dr. N. Ew")
    page.get_by_role("button", name="Make the link").click()
    page.get_by_role("button", name="Copy the link").wait_for()


def second_factor(page: Page) -> None:
    page.get_by_role("button", name="Set it up…").click()
    page.locator("dialog[open]").get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Show the code to scan").click()
    page.get_by_label("Six digits").wait_for()


def recovery_codes(page: Page) -> None:
    second_factor(page)
    secret = "".join(page.locator(".secret").inner_text().split())
    page.get_by_label("Six digits").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Put it in force").click()
    page.get_by_role("list", name="Recovery codes").wait_for()


def asked_for_code(page: Page) -> None:
    page.get_by_label("User name").fill("guarded")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/login/code*")


def wrong_password(page: Page) -> None:
    page.get_by_label("User name").fill("nobody")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()


def no_connection(page: Page) -> None:
    page.context.set_offline(True)
    page.select_option("#state", "all")
    page.locator(".toast").wait_for()
    page.context.set_offline(False)


def invite_hospital(page: Page) -> None:
    page.get_by_role("button", name="Invite a hospital…").click()


def add_person(page: Page) -> None:
    page.get_by_role("button", name="Add with a password…").click()


def classes(page: Page) -> None:
    claim(page)
    page.keyboard.press("0")
    page.wait_for_selector("#classes[open]")


def expired(page: Page) -> None:
    claim(page)
    page.route("**/heartbeat", lambda route: route.fulfill(status=401, json={"message": "Your session has ended."}))
    page.route("**/cells", lambda route: route.fulfill(status=401, json={"message": "Your session has ended."}))
    page.keyboard.press(".")
    page.keyboard.press("6")
    page.wait_for_selector("#expired[open]")
    page.unroute_all()


def ready_to_sign(page: Page) -> None:
    claim(page)
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    while page.locator(".unseen").count():
        page.keyboard.press("Space")
        page.wait_for_timeout(600)
    open_sign(page)


def choose_many(page: Page) -> None:
    page.wait_for_selector(READY)
    tiles = page.locator("[data-group]:not([data-group=unsure]) .tile")
    tiles.first.click()
    tiles.nth(5).click(modifiers=["Shift"])


def mark(page: Page) -> None:
    page.wait_for_selector(".boxes g")
    page.keyboard.press("n")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")


def menu(page: Page) -> None:
    page.wait_for_selector(READY)
    page.locator(".tile").nth(3).click(button="right")


def compare(page: Page) -> None:
    choose_many(page)
    page.keyboard.press("v")
    page.wait_for_timeout(800)


def red_cells(page: Page) -> None:
    page.wait_for_selector(READY)
    for key in ("s", "2", "ArrowDown", "3"):
        page.keyboard.press(key)
    page.locator("#saved", has_text="saved").wait_for()


def malaria(page: Page) -> None:
    page.wait_for_selector(READY)
    page.get_by_role("tab", name="Malaria").click()
    page.locator("#panel-malaria").get_by_label("Seen", exact=True).check()
    page.wait_for_timeout(700)


def glass(page: Page) -> None:
    page.wait_for_selector(READY)
    page.keyboard.press("Shift+G")
    page.wait_for_selector("#glass[open]")


def take_over(page: Page) -> None:
    page.wait_for_selector(READY)
    page.keyboard.press("c")
    page.wait_for_selector("#take-over[open]")


def history(page: Page) -> None:
    page.wait_for_selector(READY)
    if not page.locator(".tile.human").count():
        read(page)
    page.locator(".tile.human").first.click()
    page.keyboard.press("h")
    page.wait_for_timeout(500)


def open_plan(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.wait_for_timeout(250)


def open_sign(page: Page) -> None:
    claim(page)  # the claim may have lapsed while other pictures were taken
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("dialog[open]")
