"""Broken lists of models, and broken answers about one."""

from __future__ import annotations

from pathlib import PurePosixPath

from .container import PAGE, Answer, Container, Refused
from .registry import breaks


@breaks("list-empty")
class NoListWithoutModels(Container):
    """Answers GET /models with 404 while no model is loaded."""

    def list_models(self, token: str) -> Answer:
        if not self.models:
            raise Refused(404, "no models")
        return super().list_models(token)


@breaks("list-empty")
class NullListWithoutModels(Container):
    """Lists nothing as ``null``."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        if not self.models:
            answer.body["models"] = None
        return answer


@breaks("list-one")
class ListWithoutUrls(Container):
    """Leaves ``modelUrl`` out of the list."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        for entry in answer.body["models"]:
            del entry["modelUrl"]
        return answer


@breaks("list-one")
class ListsTheFolderAbove(Container):
    """Lists the parent of the url that it was given."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        for entry in answer.body["models"]:
            entry["modelUrl"] = str(PurePosixPath(entry["modelUrl"]).parent)
        return answer


@breaks("list-many")
class PagesRepeatAModel(Container):
    """Starts each further page with the last model of the page before."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(str(max(int(token or 0) - 1, 0)))
        if token and "nextPageToken" in answer.body:
            answer.body["nextPageToken"] = str(int(token) + PAGE)
        return answer


@breaks("list-many")
class PagesLoseAModel(Container):
    """Steps over a model between pages."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        if "nextPageToken" in answer.body:
            answer.body["nextPageToken"] = str(int(token or 0) + PAGE + 1)
        return answer


@breaks("list-many")
class OnlyTheFirstPage(Container):
    """Lists 100 models and gives no token for the rest."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        answer.body.pop("nextPageToken", None)
        return answer


@breaks("list-many")
class PagesNeverEnd(Container):
    """Gives a token with the last page of many, too; it leads to the first."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        if token and "nextPageToken" not in answer.body:
            answer.body["nextPageToken"] = "0"
        return answer


@breaks("list-many")
class TokenIsIgnored(Container):
    """Answers every page with the first."""

    def list_models(self, token: str) -> Answer:
        return super().list_models("")


@breaks("get")
class GetWithoutUrl(Container):
    """Leaves ``modelUrl`` out of GET /models/NAME."""

    def get(self, name: str) -> Answer:
        return Answer(200, {"modelName": self.loaded(name).name})


@breaks("get")
class NoGet(Container):
    """Has no route GET /models/NAME."""

    def get(self, name: str) -> Answer:
        raise Refused(405, "use GET /models")


@breaks("get-not-loaded")
class GetOfAnUnknownModelIsEmpty(Container):
    """Answers 200 and an empty object for a model that was never loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        self.known.add(name)
        return super().load(name, url, headers)

    def get(self, name: str) -> Answer:
        return super().get(name) if name in self.known else Answer(200, {})


@breaks("get-not-loaded")
class GetOfAnUnknownModelIs400(Container):
    """Answers 400 for a model that was never loaded."""

    def get(self, name: str) -> Answer:
        try:
            return super().get(name)
        except Refused as refused:
            raise Refused(400, str(refused)) from refused
