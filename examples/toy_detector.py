"""A detector of one's own in a loop of one's own, distilled with detkd's losses; it needs torch and detkd alone."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import one_hot, softplus

from detkd.boxes import contains, generalized_iou
from detkd.losses import BCKD, PKD

CENTRES = (torch.cartesian_prod(torch.arange(8), torch.arange(8)).flip(1) + 0.5) * 8  # (x, y) of 8×8 cells, [A, 2]


class Detector(nn.Sequential):
    def __init__(self, width: int) -> None:
        body = nn.Sequential(nn.Conv2d(3, width, 5, 4, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        super().__init__(body, nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 6, 3, 1, 1)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # features, logits [B, 2, A], boxes [B, A, 4]
        features = self[0](images)
        logits, sides = self[1](features).flatten(2).split((2, 4), 1)
        return features, logits, CENTRES.repeat(1, 2) + softplus(sides.mT) * torch.tensor([-8, -8, 8, 8])


def pictures(count: int) -> tuple[Tensor, Tensor, Tensor]:  # of a red or a green rectangle on noise; its box, its colour
    images, colours = torch.rand(count, 3, 64, 64), torch.randint(0, 2, (count,))
    boxes = torch.randint(12, 32, (count, 2, 2)).cumsum(1).flatten(1)
    for image, colour, (x1, y1, x2, y2) in zip(images, colours, boxes, strict=True):
        image[colour, y1:y2, x1:x2] += 0.7
    return images, boxes.float(), colours


def task_loss(logits: Tensor, boxes: Tensor, truth: Tensor, colours: Tensor) -> Tensor:
    inside = contains(truth[:, None], CENTRES)  # cells whose centre lies in the object
    wanted = (one_hot(colours, 2)[:, :, None] * inside[:, None]).float()
    return bce(logits, wanted, reduction="sum") / inside.sum() + (1 - generalized_iou(boxes, truth[:, None]))[inside].mean()


def train(student: Detector, data: tuple[Tensor, ...], teacher: Detector | None = None) -> Detector:
    bckd, pkd, aligner = BCKD(), PKD(), nn.Conv2d(student[1][0].in_channels, 32, 1)
    optimizer = torch.optim.Adam([*student.parameters(), *aligner.parameters()], 3e-3)
    for chosen in torch.randint(0, len(data[0]), (500, 16)):
        images, *labels = (part[chosen] for part in data)
        features, logits, boxes = student(images)
        loss = task_loss(logits, boxes, *labels)
        if teacher is not None:
            with torch.no_grad():
                teacher_features, teacher_logits, teacher_boxes = teacher(images)
            loss += bckd(logits, teacher_logits, boxes, teacher_boxes) + pkd(aligner(features), teacher_features)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


torch.manual_seed(0)
few, (unseen, *truth), teacher = pictures(40), pictures(512), train(Detector(32), pictures(4000))
for helper in (None, teacher):
    torch.manual_seed(1)
    print("distilled" if helper else "alone", task_loss(*train(Detector(8), few, helper)(unseen)[1:], *truth).item())
