// Two small things that the theme lacks: a figure opens at full size, and a fold says what it hides.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".bd-article img")) {
    if (image.closest("a") || image.classList.contains("cover")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.className = "full-size";
    link.title = "Open at full size";
    image.replaceWith(link);
    link.append(image);
  }
  // The first comment of a folded cell is its title; a solution says that it is one.
  for (const fold of document.querySelectorAll(".bd-article .cell details.hide")) {
    const label = fold.querySelector("summary .collapsed");
    if (!label) continue;
    const first = fold.querySelector("pre")?.textContent.trimStart().match(/^# ([^\n]+)/);
    if (fold.closest(".cell.tag_solution")) label.textContent = "Show a solution";
    else if (first) label.textContent = first[1];
  }
});
