"""A detector of one's own in a loop of one's own, distilled with detkd's losses; it needs torch and detkd alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detkd.boxes import contains, generalized_iou
from detkd.losses import BCKD, PKD

SIZE, STRIDE = 64, 8
CENTRES = (torch.cartesian_prod(*[torch.arange(SIZE // STRIDE)] * 2).flip(1) + 0.5) * STRIDE  # (x, y), [A, 2]


class Detector(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        parts = [layer for inputs in (3, width, width) for layer in (nn.Conv2d(inputs, width, 3, 2, 1), nn.ReLU())]
        self.body, self.head = nn.Sequential(*parts), nn.Conv2d(width, 6, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # features, logits [B, 2, A], boxes [B, A, 4]
        features = self.body(images)
        logits, sides = self.head(features).flatten(2).split((2, 4), 1)
        left_top, right_bottom = (F.softplus(sides.transpose(1, 2)) * STRIDE).split(2, -1)
        return features, logits, torch.cat((CENTRES - left_top, CENTRES + right_bottom), -1)


def batch(count: int) -> tuple[Tensor, Tensor, Tensor]:  # pictures of a red or a green rectangle, its box, its class
    images, colours = torch.rand(count, 3, SIZE, SIZE), torch.randint(0, 2, (count,))
    boxes = torch.randint(12, 32, (count, 2, 2)).cumsum(1).flatten(1)
    for image, colour, (x1, y1, x2, y2) in zip(images, colours, boxes, strict=True):
        image[colour, y1:y2, x1:x2] += 0.7
    return images, boxes.float(), colours


def task_loss(logits: Tensor, boxes: Tensor, truth: Tensor, colours: Tensor) -> Tensor:
    inside = contains(truth[:, None], CENTRES)  # cells centred in the object
    wanted = (F.one_hot(colours, 2)[:, :, None] * inside[:, None]).float()
    box_loss = (1 - generalized_iou(boxes, truth[:, None]))[inside].mean()
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / inside.sum() + box_loss


def train(student: Detector, data: tuple[Tensor, Tensor, Tensor], teacher: Detector | None = None) -> Detector:
    bckd, pkd, aligner = BCKD(), PKD(), nn.Conv2d(student.head.in_channels, 32, 1)
    optimizer = torch.optim.Adam([*student.parameters(), *aligner.parameters()], 3e-3)
    for _ in range(500):
        images, *labels = (part[torch.randint(0, len(part), (16,))] for part in data)
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


if __name__ == "__main__":
    torch.manual_seed(0)
    few, unseen, teacher = batch(40), batch(512), train(Detector(32), batch(4000))
    for title, helper in (("alone", None), ("distilled", teacher)):
        torch.manual_seed(1)
        student = train(Detector(8), few, helper)
        print(f"student {title}: loss {task_loss(*student(unseen[0])[1:], *unseen[1:]):.3f} on pictures it has not seen")
