// The controls of a schema: what an edit asks of every attribute, and how hard it pushes.
//
//   const form = controls(root, schema, changed)     builds them; changed(settled) is called when somebody moves one
//   form.show({asked, weights, believed})            puts what stands into them
//   form.read()                                      {asked: {name: value}, weights: {name: w}}, "as it is" left out

function controls(root, schema, changed) {
  const asked = {}, weights = {}, rows = {}
  let believed = {}

  const title = Object.fromEntries(schema.map((one) => [one.name, one.title]))
  const stands = (name) => asked[name] ?? believed[name]?.asked
  const applies = (attribute) => Object.entries(attribute.applies_if).every(([name, wanted]) => (stands(name) ?? wanted) === wanted)
  const belief = (name) => believed[name] ? `${believed[name].value}, ${percent(believed[name].probability)}` : ''
  const ask = (name, value, settled = true) => {
    if (value === undefined) { delete asked[name]; delete weights[name] } else asked[name] = value
    for (const one of schema) if (asked[one.name] !== undefined && !applies(one)) { delete asked[one.name]; delete weights[one.name] }
    refresh()
    changed(settled)
  }

  // --- one kind of control each: a row, and how it shows what is asked ---

  function toggle(attribute) {
    const name = attribute.name, radios = {}
    const segments = [['off', false], ['as it is', undefined], ['on', true]].map(([text, value]) => {
      const radio = radios[value] = element_of('input', {type: 'radio', name: `ask-${name}`, value: String(value)})
      radio.addEventListener('change', () => ask(name, value))
      return element_of('label', {}, radio, element_of('span', {}, text))
    })
    const row = element_of('fieldset', {class: 'row toggle', 'data-name': name},
      element_of('legend', {}, title[name]), element_of('div', {class: 'segments'}, ...segments))
    const middle = segments[1].lastChild
    return {row, show() {
      radios[asked[name]].checked = true
      middle.replaceChildren('as it is', element_of('small', {}, belief(name)))
    }}
  }

  function choice(attribute) {
    const name = attribute.name, first = element_of('option', {value: ''}, 'as it is')
    const select = element_of('select', {id: `ask-${name}`}, first, ...attribute.values.map((value) => element_of('option', {value}, value)))
    select.addEventListener('change', () => ask(name, select.value || undefined))
    const row = element_of('div', {class: 'row', 'data-name': name}, element_of('label', {for: `ask-${name}`}, title[name]), select)
    return {row, show() {
      select.value = asked[name] ?? ''
      select.disabled = !applies(attribute)
      first.textContent = select.disabled ? attribute.when : believed[name]?.applies ? `as it is: ${believed[name].value}` : 'as it comes'
    }}
  }

  function scale(attribute) {
    const name = attribute.name, ordered = attribute.values.length > 0
    const [low, high] = ordered ? [0, attribute.values.length - 1] : attribute.range
    const slider = element_of('input', {type: 'range', id: `ask-${name}`, min: low, max: high, step: ordered ? 1 : (high - low) / 100})
    const free = element_of('button', {type: 'button', class: 'quiet'}, 'as it is')
    free.setAttribute('aria-label', `${title[name]}: as it is`)
    const text = element_of('output', {for: `ask-${name}`})
    const value = () => ordered ? attribute.values[+slider.value] : +slider.value
    slider.addEventListener('input', () => ask(name, value(), false))
    slider.addEventListener('change', () => ask(name, value()))
    free.addEventListener('click', () => ask(name, undefined))
    const row = element_of('div', {class: 'row scale', 'data-name': name}, element_of('label', {for: `ask-${name}`}, title[name]), slider, text, free)
    return {row, show() {
      const now = stands(name)
      if (now !== undefined) slider.value = ordered ? attribute.values.indexOf(now) : now
      text.textContent = ordered ? now ?? '' : now === undefined ? '' : (+now).toFixed(2)
      slider.setAttribute('aria-valuetext', text.textContent)
      slider.disabled = !applies(attribute)
      free.disabled = asked[name] === undefined
    }}
  }

  const control = (attribute) => attribute.kind === 'toggle' ? toggle(attribute)
    : attribute.kind === 'number' || attribute.ordered ? scale(attribute) : choice(attribute)

  // --- the list: binary attributes, then details by what they detail, then how hard to push ---

  const parent = (attribute) => attribute.parents[0] ?? ''
  const add = (attribute, place) => { rows[attribute.name] = control(attribute); place.append(rows[attribute.name].row) }
  const main = element_of('div', {class: 'rows'})
  const groups = {}
  for (const attribute of schema) {
    if (attribute.kind === 'toggle') add(attribute, main)
    else (groups[parent(attribute)] ??= []).push(attribute)
  }
  root.replaceChildren(element_of('h3', {}, 'Ask for'), main)
  const summaries = []
  const order = Object.keys(groups).sort((a, b) => (a === '') - (b === ''))
  for (const name of order) {
    const count = element_of('span', {class: 'count'}), inside = element_of('div', {class: 'rows'})
    const heading = name ? `Details of ${title[name]}` : Object.keys(groups).length > 1 ? 'Other' : 'Attributes'
    root.append(element_of('details', {class: 'group', open: order.length === 1}, element_of('summary', {}, heading, count), inside))
    for (const attribute of groups[name]) add(attribute, inside)
    summaries.push(() => {
      const set = groups[name].filter((one) => asked[one.name] !== undefined)
      count.textContent = set.length ? set.map((one) => asked[one.name]).join(', ') : groups[name].map((one) => one.title).join(', ')
      count.classList.toggle('set', set.length > 0)
    })
  }
  const pushes = element_of('div', {class: 'rows'})
  const tucked = element_of('details', {class: 'group weights'}, element_of('summary', {}, 'How hard to push', element_of('span', {class: 'count'}, 'a weight for each')), pushes)
  root.append(tucked)

  function push(name) {
    const slider = element_of('input', {type: 'range', id: `push-${name}`, min: 0, max: 3, step: 0.1, value: weights[name] ?? 1})
    const text = element_of('output', {for: `push-${name}`}, (weights[name] ?? 1).toFixed(1))
    const moved = (settled) => { weights[name] = +slider.value; text.textContent = weights[name].toFixed(1); changed(settled) }
    slider.addEventListener('input', () => moved(false))
    slider.addEventListener('change', () => moved(true))
    return element_of('div', {class: 'row scale', 'data-push': name}, element_of('label', {for: `push-${name}`}, title[name]), slider, text)
  }

  function refresh() {
    for (const row of Object.values(rows)) row.show()
    for (const summary of summaries) summary()
    const there = [...pushes.children].map((row) => row.dataset.push).join(), wanted = Object.keys(asked)
    if (there !== wanted.join()) pushes.replaceChildren(...wanted.map(push))
    else for (const name of wanted) {
      const row = pushes.querySelector(`[data-push="${name}"]`)
      row.querySelector('input').value = weights[name] ?? 1
      row.querySelector('output').textContent = (weights[name] ?? 1).toFixed(1)
    }
    tucked.hidden = !wanted.length
  }

  return {
    show(view) {
      believed = view.believed
      for (const name of Object.keys(asked)) delete asked[name]
      for (const name of Object.keys(weights)) delete weights[name]
      Object.assign(asked, view.asked)
      Object.assign(weights, view.weights)
      refresh()
    },
    read: () => ({asked: {...asked}, weights: {...weights}}),
  }
}
