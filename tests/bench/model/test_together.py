"""Images that lie apart are one smear for a while."""

from pathlib import Path

from PIL import Image

from client_node.analysis.smears import SmearKind, plan_smears
from tests.bench.model.together import name_of, together


def test_images_of_many_folders_are_one_smear_in_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "one.png" for folder in ("b", "a", "c")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    with together(paths, ["basophil", "immature_granulocyte", "platelet"]) as images:
        (plan,) = plan_smears(images, SmearKind.GALLERY)
        assert [Image.open(image.path).getpixel((0, 0)) for image in plan.images] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
        assert [name_of(path) for path in images] == ["basophil", "immature_granulocyte", "platelet"]
    assert not images[0].parent.exists()
